"""The last lines that a job printed, for whoever asks why it ended as it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from orchestrator.log_end import LogEnd, read_log_end
from orchestrator.report import RunReport
from states.job import Job

# What the runner in the guest prints before the command does.
RUNNERS_LINE = "[pikaci] incus guest booted at "
# Enough for the end of most test runners; `pikaci logs` has the rest.
LAST_LINES = 40


def last_lines(job: Job, *, colours: bool = False) -> LogEnd:
    """The last `LAST_LINES` lines of a job's log, without the runner's. Reads the disk."""
    if not job.artifacts:
        return LogEnd((), 0, True)
    end = read_log_end(Path(job.artifacts) / "guest.log", lines=LAST_LINES, colours=colours)
    if end.whole and end.lines and end.lines[0].startswith(RUNNERS_LINE):
        return replace(end, lines=end.lines[1:])
    return end


def with_log_ends(report: RunReport, jobs: Sequence[Job]) -> RunReport:
    """The report of these jobs with the last lines of each log. Reads the disk."""
    documents = (
        msgspec.structs.replace(document, log_end=last_lines(job).lines)
        for document, job in zip(report.jobs, jobs, strict=True)
    )
    return msgspec.structs.replace(report, jobs=tuple(documents))
