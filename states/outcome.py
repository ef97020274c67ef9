"""How a job ended, why it did not pass, and what that is as an exit code."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec


class Outcome(enum.StrEnum):
    """What the command did, once its result was collected."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


class FailureKind(enum.StrEnum):
    """Why a job did not pass. It follows from where the job ended, never from a log's text."""

    TEST = "test"
    TIMEOUT = "timeout"
    INFRASTRUCTURE = "infrastructure"
    CONFIG = "config"
    CANCELLED = "cancelled"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """`phase` is the state that the job was in when it arose; `message` says what was seen."""

    kind: FailureKind
    phase: str
    message: str
    resolution: str = ""


class Verdict(enum.StrEnum):
    """How a job, or a whole run, ended, in one word; `unfinished` is of runs alone.

    Such a run has a job that has not ended, or none at all, and did not fail otherwise.
    """

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INFRASTRUCTURE = "infrastructure"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    UNFINISHED = "unfinished"


EXIT_CODES = {
    Verdict.PASSED: 0,
    Verdict.FAILED: 1,
    Verdict.REJECTED: 2,
    Verdict.TIMED_OUT: 3,
    Verdict.INFRASTRUCTURE: 4,
    Verdict.UNFINISHED: 4,
    Verdict.CANCELLED: 130,
}
EXIT_NO_JOBS = 5

# Of several jobs, the first of these that occurs speaks for the run. A rejected job is first
# of all, as nothing runs beside it.
_PRECEDENCE = (
    Verdict.REJECTED,
    Verdict.CANCELLED,
    Verdict.FAILED,
    Verdict.TIMED_OUT,
    Verdict.INFRASTRUCTURE,
    Verdict.UNFINISHED,
    Verdict.PASSED,
)


def overall(verdicts: Iterable[Verdict | None]) -> Verdict:
    """The verdict of a run with these jobs; None is that of a job that has not ended.

    A run passed when it has jobs, and each of them did.
    """
    seen = {verdict or Verdict.UNFINISHED for verdict in verdicts}
    return next((verdict for verdict in _PRECEDENCE if verdict in seen), Verdict.UNFINISHED)
