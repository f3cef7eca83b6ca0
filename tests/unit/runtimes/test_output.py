"""Output files: turned over, read from the end, followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.runtimes import output


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_small_file_is_left_alone(tmp_path: Path) -> None:
    """Up to the limit nothing happens."""
    path = tmp_path / "log"
    append(path, "x" * 100)
    assert not output.turn_over(str(path), limit=100, files=5)
    assert output.generations(str(path)) == [str(path)]


@pytest.mark.parametrize("files", [2, 3])
def test_nothing_is_lost_before_the_oldest_part_is_dropped(tmp_path: Path, files: int) -> None:
    """All parts together are the newest end of what was written, whole lines at the joints included."""
    path, written = tmp_path / "log", ""
    for turn in range(6):
        part = "".join(f"turn {turn} line {number}\n" for number in range(1000))
        append(path, part)
        written += part
        assert output.turn_over(str(path), limit=1000, files=files)
    parts = output.generations(str(path))
    assert len(parts) == files
    kept = "".join(Path(name).read_text(encoding="utf-8") for name in reversed(parts))
    assert kept
    assert written.endswith(kept)


def test_only_file_is_cut_off(tmp_path: Path) -> None:
    """With one file kept, turning over empties it."""
    path = tmp_path / "log"
    append(path, "x" * 2000)
    assert output.turn_over(str(path), limit=1000, files=1)
    assert path.read_bytes() == b""
    assert output.generations(str(path)) == [str(path)]


@given(
    turns=st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=5),
    looks=st.lists(st.booleans(), min_size=5, max_size=5),
    limit=st.sampled_from([3_000, 10_000]),
)
def test_follower_sees_each_line_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, turns: list[list[int]], looks: list[bool], limit: int
) -> None:
    """However often the file is turned over between two looks, as long as the parts are kept."""
    path = tmp_path_factory.mktemp("follow") / "log"
    append(path, "before\n")
    follower = output.Follower(str(path))
    seen: list[str] = []
    written: list[str] = []
    try:
        for number, (blocks, look) in enumerate(zip(turns, looks, strict=False)):
            for block, size in enumerate(blocks):
                lines = [f"{number}.{block}.{line}" for line in range(size * 400)]
                append(path, "".join(f"{line}\n" for line in lines))
                written.extend(lines)
            output.turn_over(str(path), limit=limit, files=9)
            if look:
                seen.extend(follower.new_lines())
        append(path, "the end without a line end")
        seen.extend(follower.last())
    finally:
        follower.close()
    assert seen == [*written, "the end without a line end"]


@given(lines=st.lists(st.text(alphabet="ab \u20ac", max_size=30), max_size=40), count=st.integers(0, 50))
def test_last_lines_are_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int
) -> None:
    """Exactly as many as asked for, or all, oldest first."""
    path = tmp_path_factory.mktemp("tail") / "log"
    append(path, "".join(f"{line}\n" for line in lines))
    assert output.last_lines(str(path), count) == (lines[-count:] if count else [])


def test_follower_that_is_ahead_of_what_was_cut_off_repeats_nothing(tmp_path: Path) -> None:
    """Where only a file's beginning can be cut off, a position behind it moves along."""
    path = tmp_path / "log"
    append(path, "x" * 9_000 + "\n")
    follower = output.Follower(str(path))
    append(path, "new\n" + "y" * 500)
    output.turn_over(str(path), limit=9_100, files=3)
    seen = [*follower.last()]
    follower.close()
    assert seen == ["new", "y" * 500]


def test_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    """An endless line does not pile up in memory."""
    path = tmp_path / "log"
    append(path, "")
    follower = output.Follower(str(path))
    append(path, "x" * (3 * output.LINE_BYTES + 10))
    pieces = list(follower.new_lines())
    rest = list(follower.last())
    follower.close()
    assert len(pieces) >= 1
    assert "".join(pieces + rest) == "x" * (3 * output.LINE_BYTES + 10)
