"""How a job went over time: its pass rate, its times, and since when it fails. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import msgspec

from orchestrator.journal.rows import JobRow
from states.changes import Change, TestChanges
from states.outcome import Verdict


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One result of the job. `secs` is its time without the queue; `reason` why it failed.

    `flaky`: it ended in another way with the same inputs.
    """

    id: str
    run: str
    verdict: Verdict
    at: datetime | None
    secs: float
    commit: str
    dirty: bool
    snapshot: str
    reason: str
    flaky: bool


class JobHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The newest results of a job in a workspace, the newest first.

    `p50_secs` and `p95_secs` are of results that passed, None if none did. `failing_since` is the
    first result of the last unbroken row of failures, None if the newest passed; `last_passed` the
    newest that passed; `changes` is what the former was given in another form than the latter.
    `tests` says which tests differ between the newest result and the one that last passed, or the
    one before it if it passed. `flakes` counts the inputs with which it ended in both ways.
    """

    name: str
    workspace: str
    results: int
    passed: int
    failed: int
    timed_out: int
    flakes: int
    p50_secs: float | None
    p95_secs: float | None
    failing_since: HistoryEntry | None
    last_passed: HistoryEntry | None
    tests: TestChanges | None
    jobs: tuple[HistoryEntry, ...]
    changes: tuple[Change, ...] = ()

    @property
    def rate(self) -> float:
        """The share of results that passed, from 0 to 1."""
        return self.passed / self.results if self.results else 0.0


def job_history(
    rows: Sequence[JobRow], tests: TestChanges | None, changes: tuple[Change, ...] = ()
) -> JobHistory:
    """The history from the rows of a job's results, the newest first; there is at least one."""
    verdicts: dict[str, set[bool]] = defaultdict(set)
    for row in rows:
        if row.identity is not None:
            verdicts[row.identity].add(row.verdict is Verdict.PASSED)
    flaky = {identity for identity, ways in verdicts.items() if len(ways) == 2}
    entries = tuple(_entry(row, row.identity in flaky) for row in rows)
    passed = [entry for entry in entries if entry.verdict is Verdict.PASSED]
    failing = failing_row(rows)
    times = sorted(entry.secs for entry in passed)
    return JobHistory(
        name=rows[0].name,
        workspace=rows[0].workspace,
        results=len(entries),
        passed=len(passed),
        failed=sum(entry.verdict is Verdict.FAILED for entry in entries),
        timed_out=sum(entry.verdict is Verdict.TIMED_OUT for entry in entries),
        flakes=len(flaky),
        p50_secs=percentile(times, 50),
        p95_secs=percentile(times, 95),
        failing_since=entries[failing - 1] if failing else None,
        last_passed=passed[0] if passed else None,
        tests=tests,
        jobs=entries,
        changes=changes,
    )


def failing_row(rows: Sequence[JobRow]) -> int:
    """How many of the newest results, in an unbroken row, did not pass."""
    ways = [row.verdict is Verdict.PASSED for row in rows]
    return ways.index(True) if True in ways else len(ways)


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """The smallest of the values that at least so many percent do not exceed; None of none."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _entry(row: JobRow, flaky: bool) -> HistoryEntry:
    began, ended = row.begun or row.submitted, row.moved
    assert row.verdict is not None
    return HistoryEntry(
        id=row.id,
        run=row.run,
        verdict=row.verdict,
        at=row.submitted,
        secs=round((ended - began).total_seconds(), 3) if began and ended else 0.0,
        commit=row.commit or "",
        dirty=row.dirty,
        snapshot=row.snapshot or "",
        reason=row.message,
        flaky=flaky,
    )
