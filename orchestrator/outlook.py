"""Reads from a journal how a job went over time, and which jobs are flaky."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.history import JobHistory, failing_row, job_history
from orchestrator.journal import JobRow, JournalReader
from orchestrator.journal.history import FlakyTest
from states.changes import Change, TestChanges, case_changes, changes

# So many flaky tests of a job are looked up.
TESTS = 20


class FlakeDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A job that passed and failed with the same inputs, and how often it did.

    `passed_job` and `failed_job` are the newest of each kind. `tests` passed and failed, too.
    """

    name: str
    workspace: str
    identity: str
    passed: int
    failed: int
    passed_job: str
    failed_job: str
    tests: tuple[FlakyTest, ...]


def read_history(journal: JournalReader, job: JobRow, *, limit: int) -> JobHistory | None:
    """The history of the job's name in its workspace, over its newest results; None without any."""
    rows = journal.results(job.name, job.workspace, limit=limit)
    return job_history(rows, _tests(journal, rows), _changes(journal, rows)) if rows else None


def _changes(journal: JournalReader, rows: Sequence[JobRow]) -> tuple[Change, ...]:
    """What the first failure of those at the end had in another form than the success before it."""
    failing = failing_row(rows)
    if failing in (0, len(rows)):
        return ()
    return changes(journal.look(rows[failing]), journal.look(rows[failing - 1]))


def _tests(journal: JournalReader, rows: Sequence[JobRow]) -> TestChanges | None:
    """The tests that differ between the newest result and the last that passed before it."""
    before = failing_row(rows) or 1
    if before >= len(rows):
        return None
    outcomes = [journal.case_outcomes(row.id) for row in (rows[before], rows[0])]
    return case_changes(*outcomes) if all(outcomes) else None


def read_flakes(journal: JournalReader, *, limit: int) -> list[FlakeDocument]:
    """The newest flaky jobs, the newest first."""
    return [
        FlakeDocument(
            name=flaky.name,
            workspace=flaky.workspace,
            identity=flaky.identity,
            passed=flaky.passed_count,
            failed=flaky.failed_count,
            passed_job=flaky.passed,
            failed_job=flaky.failed,
            tests=tuple(journal.flaky_tests(flaky.identity, limit=TESTS)),
        )
        for flaky in journal.flaky_jobs(limit=limit)
    ]
