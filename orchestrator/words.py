"""Words for people about a job: its verdict, or what is being done for it.

The terminal, the page and messages use these words. The journal, the JSON documents and the traces
use the names of states and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

if TYPE_CHECKING:
    from orchestrator.journal import JobRow

VERDICTS: Mapping[str, str] = {
    Verdict.PASSED: "passed",
    Verdict.FAILED: "failed",
    Verdict.TIMED_OUT: "timed out",
    Verdict.INFRASTRUCTURE: "infrastructure fault",
    Verdict.REJECTED: "rejected",
    Verdict.CANCELLED: "cancelled",
    Verdict.SKIPPED: "skipped",
    Verdict.UNFINISHED: "unfinished",
}
STATES: Mapping[str, str] = {
    State.NEW: "new",
    State.SUBMITTED: "queued",
    State.ARTIFACTS_RESET: "creating",
    State.DEVICES_CONFIGURED: "starting",
    State.INSTANCE_READY: "ready",
    State.RUNNING: "running",
    State.PUBLISHING: "publishing",
    State.RESULT_COLLECTED: "collected",
    State.CANCELLING: "cancelling",
    State.REJECTED: VERDICTS[Verdict.REJECTED],
    State.FAILED: VERDICTS[Verdict.INFRASTRUCTURE],
    State.CANCELLED: VERDICTS[Verdict.CANCELLED],
    State.REUSED: "reused",
    State.SKIPPED: VERDICTS[Verdict.SKIPPED],
}
# For a job that cannot be read: its last state is not certain.
DAMAGED = "damaged"


def job_word(job: Job | JobRow) -> str:
    """The verdict of a job that has ended, else its state; `damaged` if it cannot be read."""
    if isinstance(job, Job) and job.damage:
        return DAMAGED
    return verdict_or_state(job.verdict, job.state)


def verdict_or_state(verdict: Verdict | None, state: State) -> str:
    """The verdict if there is one, else the state. A reused job has passed before."""
    if state is State.REUSED:
        return STATES[state]
    return VERDICTS[verdict] if verdict else STATES[state]
