"""How a job ended, why it did not pass, and the exit code for it."""

# Annotations are not text here: msgspec would compile each of them, at every start.
import enum
from collections.abc import Iterable

import msgspec


class Outcome(enum.StrEnum):
    """What the command did, according to its result."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


class FailureKind(enum.StrEnum):
    """Why a job did not pass. Derived from where the job ended, never from the text of a log."""

    TEST = "test"
    TIMEOUT = "timeout"
    INFRASTRUCTURE = "infrastructure"
    CONFIG = "config"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job did not pass: `phase` is the job's state then, `message` what was seen."""

    kind: FailureKind
    phase: str
    message: str
    resolution: str = ""


class Flake(msgspec.Struct, frozen=True, kw_only=True):
    """A job that passed once and did not another time, with the same of all that pikaci gives it.

    `passed` and `failed` say how often, this job included; a timeout counts as failed. `other` is
    the newest job that ended in the other way.
    """

    passed: int
    failed: int
    other: str


class Verdict(enum.StrEnum):
    """How a job or a whole run ended, in one word.

    Only runs can be `unfinished`: the run has no jobs, or one that has not ended, and no worse
    verdict applies.
    """

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INFRASTRUCTURE = "infrastructure"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNFINISHED = "unfinished"


EXIT_CODES = {
    Verdict.PASSED: 0,
    Verdict.FAILED: 1,
    Verdict.REJECTED: 2,
    Verdict.TIMED_OUT: 3,
    Verdict.INFRASTRUCTURE: 4,
    Verdict.UNFINISHED: 4,
    Verdict.SKIPPED: 4,  # of a run whose jobs were all skipped; otherwise that of the job before
    Verdict.CANCELLED: 130,
}
EXIT_NO_JOBS = 5

# The verdict of a run is the first of these that one of its jobs has. Rejected comes first, because
# then no job of the run is started, unless another version of pikaci accepted the run.
_PRECEDENCE = (
    Verdict.REJECTED,
    Verdict.CANCELLED,
    Verdict.FAILED,
    Verdict.TIMED_OUT,
    Verdict.INFRASTRUCTURE,
    Verdict.UNFINISHED,
    Verdict.SKIPPED,
    Verdict.PASSED,
)


def counted(verdict: Verdict | None, because: str | None) -> Verdict | None:
    """The verdict of a job as it counts for the run's.

    A job that was cancelled because of another one that did not pass counts as skipped.
    """
    return Verdict.SKIPPED if because and verdict is Verdict.CANCELLED else verdict


def overall(verdicts: Iterable[Verdict | None]) -> Verdict:
    """The verdict of a run from those of its jobs; None stands for a job that has not ended.

    A run has passed when it has jobs and all of them passed.
    """
    seen = {verdict or Verdict.UNFINISHED for verdict in verdicts}
    return next((verdict for verdict in _PRECEDENCE if verdict in seen), Verdict.UNFINISHED)
