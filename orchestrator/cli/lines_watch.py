"""A run as lines: for the log of a CI system, or a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from orchestrator.cli.ended_text import ended_text
from orchestrator.cli.job_lines import JobLines
from orchestrator.cli.printer import Printer, run_printers, write_stderr
from orchestrator.cli.progress_line import ProgressLine
from orchestrator.cli.signals import stopping
from orchestrator.cli.style import stderr_style, stdout_style
from orchestrator.cli.summary import describe_news, describe_snapshot, end_text
from orchestrator.cli.watched import WatchedRun
from orchestrator.terminal import plain
from orchestrator.units import counted
from states import events as ev
from states.job import Job

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.progress import Progress
    from orchestrator.snapshot.snapshot import Snapshot


class LinesWatch:
    """`job | line` as it comes, and a line for each job that ends.

    `log` is where the jobs' output goes: stdout, stderr or none, which shows the end of what did
    not pass. `verbose` tells of each state too.
    """

    def __init__(self, *, log: str, verbose: bool) -> None:
        self.wants_log = log != "none"
        self._verbose = verbose
        self._known = WatchedRun()
        self._printer = Printer()
        self._messages = Printer(write_stderr)
        self._style = stdout_style()
        self._progress = ProgressLine(self._messages.say)
        to_stderr = log == "stderr"
        self._lines = JobLines(
            self._known,
            self._messages if to_stderr else self._printer,
            stderr_style() if to_stderr else self._style,
        )
        self._told: set[str] = set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await run_printers(self._printer, self._messages, task_status=task_status)

    def begin(self, run: str, request: Request) -> None:
        self._known.begin(list(request.specs))
        self._lines.begin()
        jobs = counted(len(request.specs), "job")
        self._say(f"run {run}: {jobs} of {request.workspace}")

    def publishing(self, progress: Progress | None) -> None:
        self._progress.show(progress)

    def snapshot(self, snapshot: Snapshot) -> None:
        self._say(describe_snapshot(snapshot))

    def entry(self, entry: ev.Entry) -> None:
        self._known.entry(entry)
        if news := describe_news(entry):
            self._say(f"{self._known.name(entry.job)}: {news}")
        elif self._verbose and isinstance(entry, ev.Event):
            job = self._known.jobs[entry.job]
            if not job.ended:
                self._say(f"{self._known.name(job.id)}: {self._known.word(job.id)}")

    async def log(self, job: str, chunk: bytes) -> None:
        await self._lines.feed(job, chunk)

    async def ended(self, job: str, *, flaky: bool = False) -> None:
        self._told.add(job)
        await self._lines.end(job)
        text = await ended_text(
            self._known,
            job,
            self._style,
            names=self._lines.width,
            width=None,
            log=not self.wants_log,
            flaky=flaky,
        )
        await self._printer.write(text)

    def warn(self, warning: str) -> None:
        self._messages.say(f"warning: {plain(warning)}\n")

    def stopping(self) -> None:
        self._messages.say(stopping(*so_many(self._known.unfinished)) + "\n")

    async def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> None:
        for job in jobs:  # rejected ones, for example, were never watched
            if job.ended and job.id in self._known.jobs and job.id not in self._told:
                await self.ended(job.id, flaky=job.flake is not None)
        text = end_text(
            jobs, colours=self._style.coloured, secs=self._known.run_secs, interrupted=interrupted
        )
        await self._printer.write("\n" + text)
        await self._printer.drain()
        await self._messages.drain()

    def _say(self, line: str) -> None:
        self._printer.say(plain(line) + "\n")


def so_many(jobs: int) -> tuple[str, str]:
    """So many jobs, for `signals.stopping`."""
    return f" {counted(jobs, 'job')}", "it" if jobs == 1 else "them"
