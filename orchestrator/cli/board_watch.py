"""A run on a terminal: finished jobs scroll up, running ones and the totals stay below."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from orchestrator.cli import colours
from orchestrator.cli.board import (
    Row,
    Totals,
    board,
    name_cells,
    pad,
    shorten,
)
from orchestrator.cli.ended_text import ended_text
from orchestrator.cli.job_lines import MAX_LINE
from orchestrator.cli.lines_watch import so_many
from orchestrator.cli.printer import Printer
from orchestrator.cli.progress_line import describe_progress
from orchestrator.cli.screen import Screen
from orchestrator.cli.signals import stopping
from orchestrator.cli.style import stdout_style
from orchestrator.cli.summary import describe_news, describe_snapshot, end_text
from orchestrator.cli.watched import WatchedRun
from orchestrator.log_lines import Line, LineSplitter, Place
from orchestrator.terminal import last_state, plain
from states import events as ev
from states.job import Job

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.progress import Progress
    from orchestrator.snapshot.snapshot import Snapshot

# The screen is drawn so often at most, and at least once a second for the clocks.
FRAME_SECS = 0.1
CLOCK_SECS = 1.0
# A run that fails waits so long for the terminal to take the last frame.
CLEAR_SECS = 1.0
MANY_LINES = 1000
# Of what was printed last, so many bytes are looked at.
LINE_BYTES = 400


class BoardWatch:
    """Draws the board; `verbose` also prints `job | line` above it."""

    wants_log = True

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._known = WatchedRun()
        self._printer = Printer()
        self._screen = Screen()
        self._style = stdout_style()
        self._told: set[str] = set()
        self._lines: dict[str, LineSplitter] = {}
        self._last: dict[str, bytes] = {}
        self._scrolled: list[str] = []
        self._progress = ""
        self._changed = trio.Event()
        self._full = trio.Event()
        self._drawn = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        printing = trio.CancelScope(shield=True)

        async def print_all(*, task_status: trio.TaskStatus[None]) -> None:
            with printing:
                await self._printer.run(task_status=task_status)

        async with trio.open_nursery() as nursery:
            await nursery.start(print_all)
            task_status.started()
            try:
                while True:
                    await self._draw()
                    with trio.move_on_after(FRAME_SECS):
                        await self._full.wait()
                    with trio.move_on_after(CLOCK_SECS - FRAME_SECS):
                        await self._changed.wait()
            finally:
                # What comes next is the message of the error that ended the run, if any.
                with trio.move_on_after(CLEAR_SECS, shield=True):
                    await self._clear()
                printing.cancel()

    def begin(self, run: str, request: Request) -> None:
        self._known.begin(list(request.specs))
        line = shorten(plain(f"run {run} of {request.workspace}"), self._size()[0] - 1)
        self._scroll(self._style.paint(colours.DIM, line))

    def publishing(self, progress: Progress | None) -> None:
        self._progress = describe_progress(progress) if progress is not None else ""
        self._changed.set()

    def snapshot(self, snapshot: Snapshot) -> None:
        self._scroll(self._style.paint(colours.DIM, describe_snapshot(snapshot)))

    def entry(self, entry: ev.Entry) -> None:
        self._known.entry(entry)
        if news := describe_news(entry):
            self._scroll(plain(f"{self._known.name(entry.job)}: {news}"))
        self._changed.set()

    async def log(self, job: str, chunk: bytes) -> None:
        self._last[job] = chunk[-LINE_BYTES:]
        if self._verbose:
            lines = self._lines.setdefault(job, LineSplitter(Place()))
            self._scroll_lines(job, list(lines.feed(chunk)))
            if len(self._scrolled) > MANY_LINES:
                # Read no faster than the terminal takes it.
                self._full.set()
                await self._drawn.wait()
        self._changed.set()

    async def ended(self, job: str, *, flaky: bool = False) -> None:
        self._told.add(job)
        if job in self._lines:
            self._scroll_lines(job, list(self._lines.pop(job).end()))
        self._last.pop(job, None)
        width, _ = self._size()
        names = name_cells(self._known.names, width)
        text = await ended_text(
            self._known,
            job,
            self._style,
            names=names,
            width=width,
            log=not self._verbose,
            flaky=flaky,
        )
        self._scroll(text.rstrip("\n"))

    def warn(self, warning: str) -> None:
        self._scroll(self._style.paint(colours.YELLOW, plain(f"warning: {warning}")))

    def stopping(self) -> None:
        what, kill = so_many(self._known.unfinished)
        self._scroll(stopping(what, kill))

    async def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> None:
        for job in jobs:  # rejected ones, for example, were never watched
            if job.ended and job.id in self._known.jobs and job.id not in self._told:
                await self.ended(job.id, flaky=job.flake is not None)
        text = end_text(
            jobs,
            colours=self._style.coloured,
            secs=self._known.run_secs,
            interrupted=interrupted,
            width=self._size()[0],
        )
        self._scroll("\n" + text)
        await self._draw(last=True)
        await self._printer.drain()

    def _scroll(self, text: str) -> None:
        self._scrolled += text.splitlines() or [""]
        self._changed.set()

    def _scroll_lines(self, job: str, lines: list[Line]) -> None:
        width, _ = self._size()
        names = name_cells(self._known.names, width)
        name = pad(shorten(self._known.name(job), names, self._style.marks.cut), names)
        for line in lines:
            text = last_state(line.data, colours=self._style.coloured, most=MAX_LINE)
            self._scrolled.append(f"{name} | {text}{colours.RESET if self._style.coloured else ''}")

    async def _draw(self, *, last: bool = False) -> None:
        self._changed, self._full = trio.Event(), trio.Event()
        scrolled, self._scrolled = self._scrolled, []
        drawn, self._drawn = self._drawn, trio.Event()
        await self._printer.write(self._screen.frame(scrolled, [] if last else self._board()))
        drawn.set()

    async def _clear(self) -> None:
        if self._screen.drawn or self._scrolled:
            await self._draw(last=True)

    def _board(self) -> list[str]:
        width, height = self._size()
        running = self._known.running
        rows = [
            Row(
                self._known.name(job.id),
                self._known.word(job.id),
                self._known.secs(job.id),
                self._last_line(job.id),
            )
            for job in running
        ]
        ended = self._known.ended
        jobs = max(len(self._known.names), len(self._known.jobs))
        waiting = self._known.waiting
        totals = Totals(
            jobs=jobs,
            ended=ended,
            running=len(running),
            queued=jobs - sum(ended.values()) - len(running) - len(waiting),
            secs=self._known.run_secs,
            reused=self._known.reused,
            waiting=len(waiting),
            needed=waiting[0] if len(set(waiting)) == 1 else "",
        )
        above = [shorten(self._progress, width - 1)] if self._progress else []
        return above + board(
            rows,
            totals,
            names=name_cells(self._known.names, width),
            width=width,
            height=height - 1 - len(above),
            paint=self._style.paint,
            marks=self._style.marks,
        )

    def _last_line(self, job: str) -> str:
        lines = self._last.get(job, b"").rstrip(b"\r\n").rsplit(b"\n", 1)
        return last_state(lines[-1], colours=False, most=LINE_BYTES)

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(1)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24
