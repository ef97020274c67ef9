"""The board fits into every terminal, whatever the jobs are called and print."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from orchestrator.cli.board import (
    ASCII,
    CUT,
    Marks,
    Row,
    Totals,
    board,
    clock,
    finished,
    name_cells,
    pad,
    shorten,
)
from orchestrator.cli.colours import painter
from orchestrator.cli.screen import Screen
from states.outcome import Verdict

TEXTS = st.text(
    st.characters(exclude_categories=("C", "Zl", "Zp"))
    | st.sampled_from("\u6e2c\u8a66\U0001f600e\u0301\t"),
    max_size=80,
)
ROWS = st.lists(
    st.builds(
        Row,
        name=TEXTS,
        state=st.sampled_from(["creating", "collecting"]),
        secs=st.floats(0, 90_000),
        line=TEXTS,
    ),
    max_size=64,
)
VERDICTS = st.dictionaries(st.sampled_from(Verdict), st.integers(0, 300)).map(Counter)
TOTALS = st.builds(
    Totals,
    jobs=st.integers(0, 300),
    ended=VERDICTS,
    running=st.integers(0, 64),
    queued=st.integers(0, 300),
    secs=st.floats(0, 90_000),
)  # fmt: skip
COLOURS = re.compile(r"\x1b\[\d+m")


@given(ROWS, TOTALS, st.integers(40, 220), st.integers(2, 60), st.booleans())
def test_no_line_is_wider_than_the_terminal_nor_more_than_it_has(
    rows: list[Row], totals: Totals, width: int, height: int, coloured: bool
) -> None:
    """Of any names and any output, on any terminal of 40 columns or more."""
    names = name_cells([row.name for row in rows], width)

    lines = board(
        rows, totals, names=names, width=width, height=height,
        paint=painter(coloured), marks=Marks(),
    )  # fmt: skip

    assert len(lines) <= height
    for line in lines:
        assert cell_len(COLOURS.sub("", line)) < width
    if len(rows) > height - 1 > 0:
        hidden = len(rows) - (height - 2)
        assert f"and {hidden} more running" in COLOURS.sub("", lines[-2])


@given(TEXTS, st.integers(1, 60))
def test_a_name_is_cut_in_the_middle(text: str, cells: int) -> None:
    """It keeps its start and its end, and takes the room that there is."""
    short = shorten(text, cells)

    assert cell_len(short) <= cells
    if cell_len(text) <= cells:
        assert short == text
    else:
        start, _, end = short.partition(CUT)
        assert text.startswith(start)
        assert text.endswith(end)
    assert cells == cell_len(pad(short, cells))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_finished_job_is_one_line(width: int) -> None:
    """Mark, name and time are in it at every width; the verdict where there is room."""
    name = "integration-with-postgresql-and-a-long-name"

    line = finished(
        name, Verdict.INFRASTRUCTURE, "infrastructure fault", 754.0, names=name_cells([name], width),
        width=width, paint=painter(False), marks=Marks(), note="3 artifacts",
    )  # fmt: skip

    assert line.startswith("! integ")
    assert "12 min 34 s" in line
    assert cell_len(line) < width
    assert ("infrastructure fault, 3 artifacts" in line) == (width == 200)


def test_columns_are_fixed() -> None:
    """Whatever is in them: a person reads down the column of states and that of times."""
    rows = [Row("a", "running", 5, "x"), Row("long-name", "collecting", 3700, "y")]

    first, second, _ = board(
        rows, Totals(2, Counter(), 2, 0, 1), names=9, width=80, height=10,
        paint=painter(False), marks=Marks(),
    )  # fmt: skip

    assert "  a         running       0:05  x" == first
    assert "  long-name collecting 1:01:40  y" == second


def test_totals_say_what_there_is() -> None:
    """Passed of all, then each kind that there is; on a narrow terminal the last ones go."""
    totals = Totals(30, Counter({Verdict.PASSED: 12, Verdict.FAILED: 2}), 4, 12, 48.9)
    lines = {
        width: board(
            [], totals, names=1, width=width, height=5, paint=painter(False), marks=Marks()
        )
        for width in (40, 80)
    }

    assert ["12/30 passed, 2 failed, 4 running, 12 queued, 0:48"] == lines[80]
    assert ["12/30 passed, 2 failed, 4 running, 0:48"] == lines[40]


def test_marks_differ_without_colours_and_without_unicode() -> None:
    """By their shapes."""
    for marks in (Marks(), ASCII):
        assert 3 == len(
            {marks.of(kind) for kind in (Verdict.PASSED, Verdict.FAILED, Verdict.CANCELLED)}
        )
    ASCII.passed.encode("ascii")


def test_clock() -> None:
    """Whole seconds, rounded down: a clock never shows what has not been."""
    assert ["0:00", "0:59", "12:34", "1:02:03"] == [clock(secs) for secs in (0.9, 59.9, 754, 3723)]


def test_frames_are_drawn_over_each_other() -> None:
    """What scrolls is written where the last frame began; what is left of that frame is erased."""
    screen = Screen()
    first = screen.frame(["done"], ["a", "b"])
    second = screen.frame([], ["c"])

    assert "done\na\x1b[K\nb\x1b[K\n\x1b[J" in first
    assert "\r\x1b[2Ac\x1b[K\n\x1b[J" in second
