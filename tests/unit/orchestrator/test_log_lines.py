"""A log's lines, however its bytes come, and the last ones of them."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import log_lines
from orchestrator.log_lines import (
    Line,
    LineSplitter,
    Place,
    find_last_lines,
    find_last_matches,
)

PIECE = 8
TEXTS = st.text("ab\n\r\u00e9\u6f22\U0001f600", max_size=60).map(str.encode)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "PIECE", PIECE)
    monkeypatch.setattr(log_lines, "_READ_BYTES", 5)


def lines_of(data: bytes, cuts: list[int], *, start: Place | None = None) -> list[Line]:
    start = start or Place()
    splitter = LineSplitter(start)
    ends = sorted({min(max(cut, start.offset), len(data)) for cut in cuts} | {len(data)})
    found = []
    for begin, end in zip([start.offset, *ends], ends, strict=False):
        found += splitter.feed(data[begin:end])
    return [*found, *splitter.end()]


@given(data=TEXTS, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_how_a_log_is_cut_up_changes_nothing(data: bytes, cuts: list[int]) -> None:
    """No byte is lost, no line too long, no character cut in two; each knows where it began."""
    found = lines_of(data, cuts)

    assert found == lines_of(data, [])
    assert data == b"".join(line.data for line in found)
    for line in found:
        place = line.place
        assert 0 < len(line.data) <= PIECE
        assert line.data == data[place.offset :][: len(line.data)]
        assert place.number == data[: place.offset].count(b"\n") + 1
        assert place.inside == (place.offset > 0 and data[place.offset - 1 : place.offset] != b"\n")
        assert b"\n" not in line.data[:-1]
        line.data.decode()


@given(data=st.binary(max_size=60))
def test_any_bytes_have_lines(data: bytes) -> None:
    """Also those that are no text."""
    found = lines_of(data, [])

    assert data == b"".join(line.data for line in found)
    assert all(0 < len(line.data) <= PIECE for line in found)


@given(data=TEXTS, count=st.integers(1, 8), numbered=st.booleans())
def test_the_last_lines_are_found(data: bytes, count: int, numbered: bool) -> None:
    """What is not ended yet is one of them; of a log with fewer lines, all."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        place = find_last_lines(file.fileno(), count, numbered=numbered)

    expected = (
        data.splitlines(keepends=True)
        if b"\r" not in data
        else re.findall(b"[^\n]*\n|[^\n]+", data)
    )
    assert b"".join(expected[-count:]) == data[place.offset :]
    assert not numbered or place.number == data[: place.offset].count(b"\n") + 1


@given(data=TEXTS, count=st.integers(1, 4))
def test_the_last_matches_are_found(data: bytes, count: int) -> None:
    """Those that are printed from there on are the last of all that match."""

    def matches(line: Line) -> bool:
        return b"a" in line.data

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        place = find_last_matches(file.fileno(), count, matches)

    whole = [line for line in lines_of(data, []) if matches(line)]
    assert whole[-count:] == [line for line in lines_of(data, [], start=place) if matches(line)]


def test_what_is_still_written_is_not_passed_over(tmp_path: Path) -> None:
    """Its line may match when it is whole."""
    path = tmp_path / "log"
    path.write_bytes(b"one\nha")
    with path.open("rb") as file:
        place = find_last_matches(file.fileno(), 3, lambda line: b"half" in line.data)

    assert Place(4, 2) == place
