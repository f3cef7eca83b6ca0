"""The page on the life of a rollout is what the state machine says."""

from __future__ import annotations

from tests.meta import lifecycle_page
from tidegate.core.lifecycle import TRANSITIONS
from tidegate.core.model import Phase


def test_page_is_in_step() -> None:
    """The diagram and the phases on the page are those of the table in the code."""
    written = lifecycle_page.PAGE.read_text("utf-8")
    assert written == lifecycle_page.page(), "run: python -m tests.meta.lifecycle_page"


def test_page_explains_every_phase() -> None:
    """No phase is drawn without a word on what goes on."""
    rows = [line.split("|")[1] for line in lifecycle_page.page().splitlines() if line.startswith("| ")]
    named = {name.strip() for row in rows for name in row.split(",")}
    assert {phase.value for phase in Phase} <= named


def test_page_draws_every_transition() -> None:
    """Each row of the table is one arrow of the picture."""
    page = lifecycle_page.page()
    for (source, trigger), target in TRANSITIONS.items():
        assert f"    {source} --> {target}: {trigger}\n" in page
