"""The layout of a run on a terminal: what each line has room for. Pure.

Finished jobs scroll up as a line each. Below them stay the running ones and a line of totals.
Mark, state and time have fixed widths. When the terminal is narrow the last line of a job's log
goes first; then names are shortened in the middle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from orchestrator.cli.cells import cell_len, set_cell_size
from orchestrator.cli.colours import CYAN, DIM, GREEN, RED, YELLOW, Paint
from orchestrator.units import duration
from orchestrator.words import VERDICTS
from states.outcome import Verdict

MARK = 2
STATE = 10  # "collecting"
CLOCK = 7  # "1:02:03"
SPENT = 11  # "12 min 34 s"
# A shorter piece of a log says nothing.
LEAST_LINE = 10
CUT = "\N{HORIZONTAL ELLIPSIS}"
NAME = 20  # a name is not cut below this for a log line
COLOURS = {
    Verdict.PASSED: GREEN,
    Verdict.FAILED: RED,
    Verdict.TIMED_OUT: RED,
    Verdict.INFRASTRUCTURE: YELLOW,
    Verdict.REJECTED: YELLOW,
    Verdict.CANCELLED: YELLOW,
    Verdict.SKIPPED: CYAN,
    Verdict.UNFINISHED: YELLOW,
}


class Marks(msgspec.Struct, frozen=True):
    """What stands before a finished job, and for what was cut out of a text."""

    passed: str = "\N{CHECK MARK}"
    failed: str = "\N{BALLOT X}"
    other: str = "!"
    skipped: str = "-"
    cut: str = CUT

    def of(self, verdict: Verdict | None) -> str:
        """The mark of a verdict; a job without one could not be read."""
        if verdict is Verdict.PASSED:
            return self.passed
        if verdict is Verdict.SKIPPED:
            return self.skipped
        return self.failed if verdict in (Verdict.FAILED, Verdict.TIMED_OUT) else self.other


UNICODE = Marks()
ASCII = Marks(passed="+", failed="x", cut="~")


class Row(msgspec.Struct, frozen=True):
    """A job that has begun and not ended: `secs` since it got its slot, `line` its last output."""

    name: str
    state: str
    secs: float
    line: str = ""


class Totals(msgspec.Struct, frozen=True):
    """Numbers of jobs; `secs` is how long the run has taken.

    Of those that passed, the outputs of `reused` jobs were there already. `queued` jobs wait for a
    slot, `waiting` ones for jobs that they need: for `needed`, if that is one job for all of them.
    """

    jobs: int
    ended: Counter[Verdict]
    running: int
    queued: int
    secs: float
    reused: int = 0
    waiting: int = 0
    needed: str = ""


def clock(secs: float) -> str:
    """Whole seconds as `0:07`, `12:34` or `1:02:03`."""
    minutes, seconds = divmod(max(0, int(secs)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def shorten(text: str, cells: int, cut: str = CUT) -> str:
    """A text in at most so many cells of a terminal, cut in the middle where it is longer."""
    if cell_len(text) <= cells:
        return text
    head = (cells - 1) // 2
    end = text
    while cell_len(end) > cells - 1 - head:
        end = end[1:]
    return set_cell_size(text, head).rstrip() + cut + end


def pad(text: str, cells: int) -> str:
    """A text with spaces behind it, up to so many cells."""
    return text + " " * (cells - cell_len(text))


def cut(text: str, cells: int) -> str:
    """A text in at most so many cells, without its end where it is longer."""
    return text if cell_len(text) <= cells else set_cell_size(text, cells).rstrip()


def name_cells(names: Sequence[str], width: int | None) -> int:
    """The width of the column of names; what the longest needs when `width` is None."""
    longest = max(map(cell_len, names), default=0)
    if width is None:
        return max(1, longest)
    room = width - 1 - MARK - 1 - STATE - 1 - CLOCK
    return max(1, min(longest, room, max(NAME, width // 2)))


def board(
    rows: Sequence[Row],
    totals: Totals,
    *,
    names: int,
    width: int,
    height: int,
    paint: Paint,
    marks: Marks,
) -> list[str]:
    """The lines that stay at the bottom: at most `height` of them, each narrower than `width`.

    `names` is the width of the column of names.
    """
    most = max(0, height - 1)
    shown = rows if len(rows) <= most else rows[: max(0, most - 1)]
    lines = [_row(row, names, width, paint, marks) for row in shown]
    if len(shown) < len(rows) and most:
        more = f"{'':{MARK}}and {len(rows) - len(shown)} more running"
        lines.append(paint(DIM, shorten(more, width - 1, marks.cut)))
    return [*lines, _totals(totals, width - 1, paint)]


def finished(
    name: str, verdict: Verdict | None, word: str, secs: float | None, *, names: int,
    width: int | None,
    paint: Paint, marks: Marks, note: str = "",
) -> str:  # fmt: skip
    """The line of a job that has ended; of any length when `width` is None.

    `word` says how it ended; that it passed is said by the mark. `secs` is None if it did not run.
    """
    colour = COLOURS.get(verdict, YELLOW) if verdict else YELLOW
    between = ": " if verdict is Verdict.SKIPPED else ", "
    said = between.join(filter(None, ["" if word == VERDICTS[Verdict.PASSED] else word, note]))
    spent = "" if secs is None else duration(secs)
    start = f"{pad(shorten(name, names, marks.cut), names)} {spent:>{SPENT}}"
    if width is not None:
        room = width - 1 - MARK - names - 1 - SPENT - 2
        said = said if cell_len(said) <= room else "" if room < LEAST_LINE else said[:room]
    return f"{paint(colour, pad(marks.of(verdict), MARK))}{start}  {said}".rstrip()


def _row(row: Row, names: int, width: int, paint: Paint, marks: Marks) -> str:
    state, secs = f"{row.state:{STATE}}", f"{clock(row.secs):>{CLOCK}}"
    names = max(1, names - (len(secs) - CLOCK))  # of a job that takes longer than ten hours
    start = f"{'':{MARK}}{pad(shorten(row.name, names, marks.cut), names)} "
    room = width - 1 - MARK - names - 1 - STATE - 1 - len(secs) - 2
    line = ""
    if room >= LEAST_LINE and row.line:
        text = row.line.replace("\t", " ").strip()
        line = "  " + cut(text, room)
    return f"{start}{paint(CYAN, state)} {secs}{paint(DIM, line) if line else ''}"


def _totals(totals: Totals, room: int, paint: Paint) -> str:
    passed = f"{totals.ended[Verdict.PASSED]}/{totals.jobs} passed"
    passed += f" ({totals.reused} reused)" if totals.reused else ""
    ended = [
        (COLOURS[verdict], f"{totals.ended[verdict]} {VERDICTS[verdict]}")
        for verdict in Verdict
        if verdict is not Verdict.PASSED and totals.ended[verdict]
    ]
    parts = [(GREEN if totals.ended[Verdict.PASSED] else "", passed), *ended]
    parts += [("", f"{totals.running} running")] if totals.running else []
    parts += [("", f"{totals.queued} queued")] if totals.queued else []
    if totals.waiting:
        needed = shorten(totals.needed, NAME) if totals.needed else "other jobs"
        parts.append(("", f"{totals.waiting} waiting for {needed}"))
    parts.append(("", clock(totals.secs)))
    while len(parts) > 2 and cell_len(", ".join(text for _, text in parts)) > room:
        del parts[-2]
    return ", ".join(paint(code, text) for code, text in parts)
