"""Who shows a run to a person or a program, while it goes on and when it has ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from orchestrator.cli import colours
from orchestrator.cli.job_lines import JobLines
from orchestrator.cli.last_lines import with_log_ends
from orchestrator.cli.output import json_bytes
from orchestrator.cli.printer import Printer, run_printers, write_stderr
from orchestrator.cli.progress_line import ProgressLine
from orchestrator.cli.signals import stopping
from orchestrator.cli.style import stderr_style
from orchestrator.cli.watched import WatchedRun
from orchestrator.report import run_report
from orchestrator.terminal import TerminalFilter, plain
from states import events as ev
from states import recorded
from states.job import Job

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.progress import Progress
    from orchestrator.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class View:
    """How a run is shown: `--output`, `--quiet`, `--verbose`; `command` for one without a name.

    `log` is where the jobs' output goes, `--log`: stdout, stderr or none.
    """

    output: str = "human"
    log: str = "stdout"
    quiet: bool = False
    verbose: bool = False
    command: bool = False


class Watch(Protocol):
    """Shows a run. `entry` is called for each entry once it is durable, and may not wait.

    With `wants_log` all of a job's log comes to `log`, piece by piece, and then `ended` is called,
    once the job has its verdict; `flaky` if it had another one with the same inputs. `run` prints,
    until it is cancelled.
    """

    wants_log: bool

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None: ...

    def begin(self, run: str, request: Request) -> None: ...

    def publishing(self, progress: Progress | None) -> None:
        """Show how far the snapshot is, which takes long; None when it no longer goes on."""
        ...

    def snapshot(self, snapshot: Snapshot) -> None: ...

    def entry(self, entry: ev.Entry) -> None: ...

    async def log(self, job: str, chunk: bytes) -> None: ...

    async def ended(self, job: str, *, flaky: bool = False) -> None: ...

    def warn(self, warning: str) -> None:
        """Tell of something that the run has, and that may be wrong."""
        ...

    def stopping(self) -> None:
        """Tell a person who asked to stop that the jobs are being stopped."""
        ...

    async def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> None:
        """Show how the run ended."""
        ...


def show_snapshot(watch: Watch, snapshot: Snapshot) -> None:
    """Show what the run's jobs see, and the snapshot's warnings."""
    watch.publishing(None)
    for warning in snapshot.warnings:
        watch.warn(warning)
    watch.snapshot(snapshot)


class JsonWatch:
    """Prints one document at the end, and the jobs' output on stderr, if it is wanted there.

    That of a single job comes unchanged.
    """

    def __init__(self, *, log: bool = False) -> None:
        self.wants_log = log
        self._printer = Printer()
        self._messages = Printer(write_stderr)
        self._progress = ProgressLine(self._messages.say)
        self._known = WatchedRun()
        self._lines = JobLines(self._known, self._messages, stderr_style())
        self._filter = TerminalFilter(colours=colours.wanted(2)) if os.isatty(2) else None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await run_printers(self._printer, self._messages, task_status=task_status)

    def begin(self, run: str, request: Request) -> None:
        self._known.begin(list(request.specs))
        self._lines.begin()

    def publishing(self, progress: Progress | None) -> None:
        self._progress.show(progress)

    def snapshot(self, snapshot: Snapshot) -> None:
        pass

    def entry(self, entry: ev.Entry) -> None:
        if self.wants_log:
            self._known.entry(entry)

    async def log(self, job: str, chunk: bytes) -> None:
        if len(self._known.names) > 1:
            await self._lines.feed(job, chunk)
        else:
            await self._messages.write(self._filter.feed(chunk) if self._filter else chunk)

    async def ended(self, job: str, *, flaky: bool = False) -> None:
        await self._lines.end(job)
        if self.wants_log and self._filter is not None:
            await self._messages.write(self._filter.end())

    def warn(self, warning: str) -> None:
        self._messages.say(f"warning: {plain(warning)}\n")

    def stopping(self) -> None:
        self._messages.say(stopping() + "\n")

    async def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> None:
        report = run_report(run, jobs, interrupted=interrupted)
        whole = await trio.to_thread.run_sync(with_log_ends, report, jobs, abandon_on_cancel=True)
        self._printer.say(json_bytes(whole, indent=True) + b"\n")
        await self._drain()

    async def _drain(self) -> None:
        await self._printer.drain()
        await self._messages.drain()


class JsonLinesWatch(JsonWatch):
    """Prints every entry of the journal as a line, when it is durable."""

    def entry(self, entry: ev.Entry) -> None:
        super().entry(entry)
        self._printer.say(json_bytes(msgspec.Raw(recorded.encode(entry))) + b"\n")

    async def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> None:
        await self._drain()


def make_watch(view: View) -> Watch:
    """The watch for a view. A person's is a board on a terminal, and lines elsewhere."""
    if view.output == "json":
        return JsonWatch(log=view.log == "stderr")
    if view.output == "jsonl":
        return JsonLinesWatch(log=view.log == "stderr")
    if view.command and not view.quiet:
        from orchestrator.cli.command_watch import CommandWatch

        return CommandWatch(verbose=view.verbose, log=view.log)
    on_board = not view.quiet and view.log == "stdout"
    if on_board and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from orchestrator.cli.board_watch import BoardWatch

        return BoardWatch(verbose=view.verbose)
    from orchestrator.cli.lines_watch import LinesWatch

    log = "none" if view.quiet else view.log
    return LinesWatch(log=log, verbose=view.verbose)
