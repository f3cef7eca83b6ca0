"""The bench's page keeps what was not measured again."""

from __future__ import annotations

from bench import report

TABLE = report.Table(heading=("", "ms"), rows=(("flip", "4.20"),))


def section(name: str, title: str) -> report.Section:
    return report.Section(name=name, title=title, method="Measured.", tables=(TABLE,), findings=("Met.",))


def test_a_section_replaces_its_own_only_and_the_order_stays() -> None:
    """Parts that were not run keep their old numbers, wherever they stand."""
    order = ("flip", "router", "kills")
    first = report.page(
        "", [(section("kills", "Kills"), "old kills"), (section("flip", "F"), "old flip")], order
    )
    second = report.page(first, [(section("flip", "F"), "new flip")], order)
    assert second == first.replace("old flip", "new flip")
    assert second.index("new flip") < second.index("old kills")


def test_writing_the_same_again_changes_nothing() -> None:
    """The page is stable, so that a difference is a difference of numbers."""
    text = report.markdown(section("flip", "Flips"), measured="today")
    first = report.page("", [(section("flip", "Flips"), text)], ("flip",))
    assert report.page(first, [(section("flip", "Flips"), text)], ("flip",)) == first


def test_a_table_has_the_same_cells_in_the_terminal_and_on_the_page() -> None:
    """Nothing is lost on either way."""
    one = section("flip", "Flips")
    for text in (report.text(one), report.markdown(one, measured="today")):
        assert all(word in text for word in ("Flips", "Measured.", "flip", "4.20", "ms", "Met."))
