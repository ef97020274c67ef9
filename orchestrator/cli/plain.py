"""A run as plain lines, for a log file or another program's window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from orchestrator.cli.summary import describe_kept, describe_snapshot, write_summary
from orchestrator.report import run_report
from orchestrator.terminal import first_line, plain
from orchestrator.units import duration, seconds
from orchestrator.words import job_word
from states import events as ev
from states.job import Job, step

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.snapshot import Snapshot


class PlainWatch:
    """One line an event: the job, its state, the seconds since it was submitted."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._jobs: dict[str, Job] = {}
        self._submitted: dict[str, float] = {}
        self._width = 0

    def begin(self, run: str, request: Request) -> None:
        count = len(request.specs)
        self._say(f"run {run}: {count} job{'s' if count != 1 else ''} of {request.workspace}")
        self._width = max((len(name) for name in request.specs), default=0)

    def snapshot(self, snapshot: Snapshot) -> None:
        self._say(describe_snapshot(snapshot))

    def entry(self, entry: ev.Entry) -> None:
        if isinstance(entry, ev.LeaseKept):
            self._say(f"  {self._jobs[entry.job].name}  {describe_kept(entry)}")
        if not isinstance(entry, ev.Event):
            return
        job = self._jobs[entry.job] = step(self._jobs.get(entry.job, Job()), entry)
        since = entry.monotonic - self._submitted.setdefault(job.id, entry.monotonic)
        name = job.name.ljust(self._width)
        self._say(f"  {name}  {seconds(since)}  {job_word(job)}")
        if isinstance(entry, ev.Retried):
            self._say(
                f"  {name}  attempt {job.attempt} in {duration(entry.delay_secs)},"
                f" as: {first_line(entry.failure.message)}"
            )

    def log(self, job: str, chunk: bytes) -> None:
        pass

    def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> int:
        report = run_report(run, jobs, interrupted=interrupted)
        write_summary(self._out, report, jobs, colours=False)
        return report.exit_code

    def _say(self, line: str) -> None:
        self._out.write(plain(line) + "\n")
        self._out.flush()
