"""Words for people about a job: its verdict, or what is being done for it.

The terminal, the page and messages use these words. The journal, the JSON documents and the traces
use the names of states and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.units import NOW, age, duration
from states.events import OutputRef
from states.identity import unkeyed
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict
from states.testcases import CaseReport, case_line, tests

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


def which_ended(word: str) -> str:
    """What a job did, by its `job_word`, as a relative clause: `which failed`."""
    return f"which {_CLAUSES.get(word, word)}"


_CLAUSES = {
    VERDICTS[Verdict.INFRASTRUCTURE]: "had an infrastructure fault",
    VERDICTS[Verdict.CANCELLED]: "was cancelled",
    VERDICTS[Verdict.REJECTED]: "was rejected",
    VERDICTS[Verdict.SKIPPED]: "was skipped",
    DAMAGED: "cannot be read",
}


def output_lines(job: Job, missing: str | None = None) -> list[str]:
    """What there is to know of the outputs that a job used, and of its own.

    `missing` says why its own was not reused, if that is known.
    """
    lines = []
    for name, output in job.inputs.items():
        said = ", ".join(filter(None, (made_by(output), beyond_key(output))))
        lines.append(f"input {name}: {said}")
    if job.output is not None:
        how = f"reused, {made_by(job.output)}" if job.state is State.REUSED else "built"
        if how == "built" and missing:
            how = f"built, because {missing}"
        lines.append(f"output: {', '.join(filter(None, (how, beyond_key(job.output))))}")
    return lines


def place(host: str, member: str = "") -> str:
    """Where a guest is: `build`, `farm/m1` for the member of a cluster; "" for this machine."""
    return f"{host}/{member}" if member else host


def made_by(output: OutputRef) -> str:
    """Which run made an output, and how long ago."""
    since = age((datetime.now(UTC) - output.at).total_seconds())
    ago = "just now" if since == NOW else f"{since} ago"
    return f"made by {output.job.rpartition('.')[0]} {ago}"


def not_in_key(output: OutputRef) -> str:
    """`beyond_key` for a line that has little room."""
    return f"not in its key: {', '.join(output.unkeyed)}" if output.unkeyed else ""


def beyond_key(output: OutputRef) -> str:
    """What the job that made the output could use that no key contains; "" if nothing."""
    if not output.unkeyed:
        return ""
    *first, last = output.unkeyed
    names = f"{', '.join(first)} and {last}" if first else last
    verb = "are not parts" if first else "is not part"
    return f"also used {names}, which {verb} of its key"


def describe_flake(job: Job) -> str:
    """How a flaky job ended here and elsewhere; "" if it is not known to be flaky."""
    if job.flake is None or job.verdict is None:
        return ""
    there = Verdict.FAILED if job.verdict is Verdict.PASSED else Verdict.PASSED
    every = job.flake.passed + job.flake.failed
    said = (
        f"flaky: {VERDICTS[job.verdict]} here, {VERDICTS[there]} in run"
        f" {job.flake.other.rpartition('.')[0]} on the same inputs"
        f" ({job.flake.passed} of {every} passed)"
    )
    others = unkeyed(job.spec) if job.spec is not None else ()
    return said + (f"; what may differ: {', '.join(others)}" if others else "")


def describe_tests(report: CaseReport | None) -> str:
    """`78 tests`, `78 tests (2 skipped)`, `3 of 617 tests failed`; "" without a report."""
    if report is None:
        return ""
    if report.not_passed:
        return f"{report.not_passed} of {tests(report.total)} failed"
    skipped = f" ({report.skipped} skipped)" if report.skipped else ""
    return f"{tests(report.total)}{skipped}"


def failed_case_lines(report: CaseReport | None) -> list[str]:
    """The first tests that failed, a line each: its name, its time, and why."""
    if report is None:
        return []
    lines = [
        case_line(case, duration(case.secs) if case.secs > 0 else "") for case in report.failures
    ]
    more = report.not_passed - len(lines)
    return lines + ([f"and {more} more {'tests' if more > 1 else 'test'}"] if more else [])


def case_lines(report: CaseReport | None) -> list[str]:
    """How many tests a job had, how long they took, and which of them took longest."""
    if report is None:
        return []
    counts = (
        (report.failed, "failed"),
        (report.errors, "had an error"),
        (report.skipped, "skipped"),
    )
    said = [f"{number} {word}" for number, word in counts if number]
    lines = [f"{', '.join([tests(report.total), *said])}; together {duration(report.secs)}"]
    slowest = [f"{case.name} {duration(case.secs)}" for case in report.slowest]
    return lines + ([f"slowest tests: {', '.join(slowest)}"] if slowest else [])
