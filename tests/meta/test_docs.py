"""The documentation's links lead somewhere."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

from tests.meta import sources

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Names that a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(page: pathlib.Path, text: str) -> Iterator[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    for link in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if path and not target.exists():
            yield link
        elif anchor and target.suffix == ".md":
            known = anchors(text if target == page else target.read_text("utf-8"))
            if anchor not in known:
                yield link


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    """No page points at a file or a heading that is not there."""
    found = [
        f"{path}: {link}"
        for path, text in sources.texts()
        if path.endswith(".md")
        for link in broken_links(sources.ROOT / path, text)
    ]
    assert not found, "\n" + "\n".join(found)


def test_a_broken_link_is_found(tmp_path: pathlib.Path) -> None:
    """A missing file and a missing heading are reported, what is there and what is code is not."""
    (tmp_path / "other.md").write_text("# The gate shuts\n", "utf-8")
    text = (
        "# Here\n[a](other.md) [b](other.md#the-gate-shuts) [c](#here) [d](https://example.com/x) "
        "[e](gone.md) [f](other.md#gone) [g](#gone)\n```\n[h](gone.md)\n```\n"
    )
    assert list(broken_links(tmp_path / "page.md", text)) == ["gone.md", "other.md#gone", "#gone"]
