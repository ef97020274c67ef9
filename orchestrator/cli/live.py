"""A run on a terminal: a live line a job, and the summary below it when all have ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.summary import describe_kept, describe_snapshot, write_summary
from orchestrator.report import run_report
from orchestrator.terminal import last_state, plain
from orchestrator.units import duration
from orchestrator.words import job_word
from states import events as ev
from states.job import Job, step
from states.outcome import Verdict

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.snapshot import Snapshot

_STYLES = {
    None: "cyan",
    Verdict.PASSED: "green",
    Verdict.FAILED: "red",
    Verdict.TIMED_OUT: "red",
}
# Of what was printed last, so many bytes are looked at.
LINE_BYTES = 400


class LiveWatch:
    """Redraws a few times a second; a guest's words are shown without any of its escapes."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._began: dict[str, float] = {}
        self._last_line: dict[str, str] = {}
        self._console = Console(highlight=False)
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=8)

    def __enter__(self) -> LiveWatch:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def begin(self, run: str, request: Request) -> None:
        self._console.print(Text(plain(f"run {run} of {request.workspace}"), style="dim"))

    def snapshot(self, snapshot: Snapshot) -> None:
        self._console.print(Text(describe_snapshot(snapshot), style="dim"))

    def entry(self, entry: ev.Entry) -> None:
        if isinstance(entry, ev.LeaseKept):
            name = self._jobs[entry.job].name
            self._console.print(Text(plain(f"{name}: {describe_kept(entry)}")), soft_wrap=True)
        if isinstance(entry, ev.Event):
            job = step(self._jobs.get(entry.job, Job()), entry)
            self._jobs[entry.job] = job
            self._began.setdefault(job.id, entry.monotonic)

    def log(self, job: str, chunk: bytes) -> None:
        lines = chunk[-LINE_BYTES:].rstrip(b"\r\n").rsplit(b"\n", 1)
        if line := last_state(lines[-1], colours=False, most=LINE_BYTES).strip():
            self._last_line[job] = line

    def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> int:
        self._live.stop()
        report = run_report(run, jobs, interrupted=interrupted)
        write_summary(sys.stdout, report, jobs, colours=self._console.color_system is not None)
        return report.exit_code

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for job in list(self._jobs.values()):
            until = job.monotonic if job.ended else time.monotonic()
            table.add_row(
                Text(plain(job.name)),
                Text(job_word(job), style=_STYLES.get(job.verdict, "yellow")),
                Text(duration(until - self._began[job.id]), style="dim"),
                Text(self._last_line.get(job.id, ""), "dim"),
            )
        return table
