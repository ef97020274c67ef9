"""The run of one command: its output, and nothing of pikaci's but what is needed, on stderr."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from orchestrator.cli import colours
from orchestrator.cli.printer import Printer, run_printers, write_stderr
from orchestrator.cli.progress_line import ProgressLine
from orchestrator.cli.signals import stopping
from orchestrator.cli.summary import describe_news, describe_snapshot, whole_reason
from orchestrator.cli.watched import WatchedRun
from orchestrator.terminal import RESET, TerminalFilter, plain
from orchestrator.words import describe_flake
from states import events as ev
from states.job import Job
from states.outcome import Verdict

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.progress import Progress
    from orchestrator.snapshot.snapshot import Snapshot


class CommandWatch:
    """Prints the command's output as it comes: byte for byte, but harmless on a terminal.

    `log` is where it goes: stdout, stderr or none.
    """

    def __init__(self, *, verbose: bool, log: str) -> None:
        self.wants_log = log != "none"
        self._verbose = verbose
        self._known = WatchedRun()
        self._printer = Printer()
        self._messages = Printer(write_stderr)
        self._progress = ProgressLine(self._messages.say)
        descriptor = 2 if log == "stderr" else 1
        self._log = self._messages if log == "stderr" else self._printer
        self._coloured = colours.wanted(descriptor)
        self._filter = TerminalFilter(colours=self._coloured) if os.isatty(descriptor) else None
        self._last = b"\n"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await run_printers(self._printer, self._messages, task_status=task_status)

    def begin(self, run: str, request: Request) -> None:
        self._known.begin(list(request.specs))
        if self._verbose:
            self._tell(f"run {run} of {request.workspace}")

    def publishing(self, progress: Progress | None) -> None:
        self._progress.show(progress)

    def snapshot(self, snapshot: Snapshot) -> None:
        if self._verbose:
            self._tell(describe_snapshot(snapshot))

    def entry(self, entry: ev.Entry) -> None:
        self._known.entry(entry)
        if news := describe_news(entry):
            self._tell(news)
        elif self._verbose and isinstance(entry, ev.Event):
            self._tell(self._known.word(entry.job))

    async def log(self, job: str, chunk: bytes) -> None:
        self._last = chunk[-1:]
        await self._log.write(chunk if self._filter is None else self._filter.feed(chunk))

    async def ended(self, job: str, *, flaky: bool = False) -> None:
        if self._filter is not None:
            await self._log.write(self._filter.end() + (RESET if self._coloured else ""))

    def warn(self, warning: str) -> None:
        self._tell(f"warning: {warning}")

    def stopping(self) -> None:
        self._messages.say(stopping(" the command", "it") + "\n")

    async def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> None:
        await self._printer.write("")  # the reason comes after all of the output
        if self._last != b"\n" and os.isatty(1) and os.isatty(2):
            self._messages.say("\n")
        for job in jobs:
            for warning in job.warnings:
                self._tell(f"warning: {warning}")
            if flake := describe_flake(job):
                self._tell(flake)
            if job.verdict is not Verdict.PASSED:
                for line in await trio.to_thread.run_sync(whole_reason, job):
                    self._tell(line)
        if not jobs and interrupted:
            self._tell("cancelled")
        await self._messages.drain()
        await self._printer.drain()

    def _tell(self, line: str) -> None:
        self._messages.say(f"pikaci: {plain(line)}\n")
