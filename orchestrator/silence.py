"""Finds the longest time in which a job printed nothing, and puts it in words."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec

from orchestrator.log_times import read_log_times
from orchestrator.units import duration
from states.job import Job
from states.outcome import Verdict

LEAST_SECS = 5.0
_READ_BYTES = 1 << 20


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """The job printed nothing for `secs` after this line; lines are counted from 1."""

    secs: float
    line: int

    def __str__(self) -> str:
        return f"for {duration(self.secs)} after line {self.line}"


def longest_silence(log: Path, *, until: datetime | None = None) -> Silence | None:
    """The longest silence while the log was followed; None if shorter than `LEAST_SECS`.

    It may be the one up to the command's end. For a log that is still followed, pass the current
    time as `until`. Reads the log up to the silence. None also if the log's times are unknown.
    """
    gaps = read_log_times(log).gaps(until=until)
    secs, end = max(gaps, key=lambda gap: gap[0], default=(0.0, None))
    if secs < LEAST_SECS:
        return None
    line = _line_at(log, end)
    return Silence(secs=round(secs, 3), line=line) if line else None


def timeout_note(job: Job) -> str:
    """What to add to the message of a timeout; empty if the job was not silent."""
    if job.verdict is not Verdict.TIMED_OUT or job.artifacts is None:
        return ""
    silence = longest_silence(Path(job.artifacts) / "guest.log")
    return f"it printed nothing {silence}" if silence else ""


def _line_at(log: Path, end: int | None) -> int:
    """The number of the line in which the log's first `end` bytes end; 0 if there is none."""
    try:
        file = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        size = os.fstat(file).st_size
        left = size if end is None else min(end, size)
        if left == 0:
            return 0
        # A final line feed ends its line, and begins no other.
        line, at = 1, 0
        while at < left - 1 and (read := os.pread(file, min(_READ_BYTES, left - 1 - at), at)):
            line += read.count(b"\n")
            at += len(read)
        return line
    except OSError:
        return 0
    finally:
        os.close(file)
