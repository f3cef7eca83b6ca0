"""What builds print: plain, bounded, and followable while it grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.sources import output


@given(st.text())
def test_nothing_drives_a_terminal(line: str) -> None:
    """Whatever a build prints, what is kept is printable."""
    assert all(letter.isprintable() or letter == "\t" for letter in output.plain(line))


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("10 %\r20 %\r100 %", "100 %"),
        ("a\u202eb", "a?b"),
        ("\x9b31m", "?31m"),
        ("tab\there", "tab\there"),
    ],
    ids=ascii,
)
def test_colours_and_progress_bars_are_taken_out(printed: str, kept: str) -> None:
    """What remains is what would be read."""
    assert output.plain(printed) == kept


def test_lines_are_read_from_where_somebody_stopped(tmp_path: Path) -> None:
    """Who has seen two lines gets the third."""
    outputs = output.Outputs(tmp_path)
    writer = outputs.begin(1, 1)
    for word in ("one", "two", "three"):
        writer(word)
    assert [line.text for line in outputs.read(1)] == ["one", "two", "three"]
    assert [line.text for line in outputs.read(1, attempt=1, after=2)] == ["three"]
    writer.close()


def test_new_attempt_begins_anew(tmp_path: Path) -> None:
    """Who has seen the first attempt gets all of the second."""
    outputs = output.Outputs(tmp_path)
    for attempt, text in ((1, "before the crash"), (2, "after it")):
        writer = outputs.begin(1, attempt)
        writer(text)
        writer.close()
    (line,) = outputs.read(1, attempt=1, after=1)
    assert (line.attempt, line.number, line.text) == (2, 1, "after it")


def test_output_is_bounded(tmp_path: Path) -> None:
    """A build that prints without end fills no disk, and what is kept says so."""
    outputs = output.Outputs(tmp_path)
    writer = outputs.begin(1, 1)
    line = "x" * 4000
    for _ in range(output.BYTES_MAX // len(line) + 100):
        writer(line)
    writer.close()
    assert (tmp_path / "1.log").stat().st_size < output.BYTES_MAX + 200
    assert list(outputs.read(1))[-1].text == output.CUT


def test_half_a_line_is_not_there_yet(tmp_path: Path) -> None:
    """A line that is being written is read when it is whole."""
    (tmp_path / "1.log").write_bytes(b"1\nwhole\nhal")
    assert [line.text for line in output.Outputs(tmp_path).read(1)] == ["whole"]


def test_old_output_makes_room(tmp_path: Path) -> None:
    """Of all pushes the newest keep their output."""
    outputs = output.Outputs(tmp_path)
    outputs.begin(1, 1).close()
    outputs.begin(1 + output.KEPT, 1).close()
    assert list(outputs.read(1)) == []
    assert not (tmp_path / "1.log").exists()


def test_push_without_output_has_none(tmp_path: Path) -> None:
    """What was never built printed nothing."""
    assert list(output.Outputs(tmp_path).read(7)) == []
