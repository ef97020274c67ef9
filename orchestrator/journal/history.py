"""Questions about many jobs: how one job went over time, and which ended in two ways. From columns.

No job is read from its events, so an answer about thousands of them takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from orchestrator.journal.rows import COLUMNS, JobRow, job_row
from states.outcome import Flake, Outcome, Verdict
from states.testcases import NOT_PASSED, CaseOutcome

# So many jobs with one identity are looked at, the newest.
MAX_TWINS = 1000
_NOT_PASSED = (Verdict.FAILED, Verdict.TIMED_OUT)
_DID_NOT_PASS = ", ".join(f"'{verdict}'" for verdict in _NOT_PASSED)
_RESULTS = ", ".join(f"'{outcome}'" for outcome in Outcome)
_TEST_FAILED = "outcome IN ({})".format(", ".join(f"'{outcome}'" for outcome in NOT_PASSED))


class FlakyJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that ended in two ways with one identity. `at` is the position of the newest of them.

    `passed` and `failed` are the newest jobs of each kind, with that identity.
    """

    workspace: str
    name: str
    identity: str
    passed_count: int
    failed_count: int
    passed: str
    failed: str
    at: int


class FlakyTest(msgspec.Struct, frozen=True, kw_only=True):
    """A test case that passed and failed in jobs of one identity, and how often."""

    suite: str
    name: str
    passed: int
    failed: int


class _Selects(Protocol):
    def _select(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...


class HistoryQueries:
    """What a `JournalReader` says about many jobs."""

    def flake(self: _Selects, identity: str | None, verdict: str | None) -> Flake | None:
        """The flake of a job that ended so: None if no job with this identity ended otherwise."""
        if identity is None or verdict not in (Verdict.PASSED, *_NOT_PASSED):
            return None
        twins = self._select(
            "SELECT id, verdict FROM jobs WHERE identity = ? ORDER BY first_entry DESC LIMIT ?",
            (identity, MAX_TWINS),
        )
        passed = [id for id, word in twins if word == Verdict.PASSED]
        failed = [id for id, word in twins if word in _NOT_PASSED]
        others = failed if verdict == Verdict.PASSED else passed
        if not others:
            return None
        return Flake(passed=len(passed), failed=len(failed), other=others[0])

    def is_flaky(self: _Selects, job: str) -> bool:
        """Whether another job with this one's identity ended in another way."""
        ends = f"('{Verdict.PASSED}', {_DID_NOT_PASS})"
        return bool(
            self._select(
                "SELECT 1 FROM jobs AS job JOIN jobs AS twin ON twin.identity = job.identity"
                f" WHERE job.id = ? AND job.verdict IN {ends} AND twin.verdict IN {ends}"
                " AND (job.verdict = 'passed') <> (twin.verdict = 'passed') LIMIT 1",
                (job,),
            )
        )

    def flaky(self: _Selects, identities: Sequence[str]) -> set[str]:
        """Those of the identities with which jobs ended in two ways."""
        rows = self._select(
            f"SELECT identity, sum(verdict = 'passed') AS passed, sum(verdict IN ({_DID_NOT_PASS}))"
            " AS failed FROM jobs WHERE identity IN (SELECT value FROM json_each(?))"
            " GROUP BY identity HAVING passed > 0 AND failed > 0",
            (msgspec.json.encode(identities).decode(),),
        )
        return {identity for identity, *_ in rows}

    def results(self: _Selects, name: str, workspace: str, *, limit: int) -> list[JobRow]:
        """The newest jobs of a name in a workspace that have a result, the newest first."""
        rows = self._select(
            f"SELECT {COLUMNS} FROM jobs WHERE name = ? AND workspace = ?"
            f" AND verdict IN ({_RESULTS}) AND state <> 'reused'"
            " ORDER BY first_entry DESC LIMIT ?",
            (name, workspace, limit),
        )
        return [job_row(row) for row in rows]

    def last_passed(self: _Selects, before: JobRow) -> JobRow | None:
        """The newest job of that name and workspace that passed, submitted before this one."""
        rows = self._select(
            f"SELECT {COLUMNS} FROM jobs WHERE name = ? AND workspace = ? AND verdict = 'passed'"
            " AND state <> 'reused' AND first_entry < (SELECT first_entry FROM jobs WHERE id = ?)"
            " ORDER BY first_entry DESC LIMIT 1",
            (before.name, before.workspace, before.id),
        )
        return next(map(job_row, rows), None)

    def flaky_jobs(self: _Selects, *, limit: int) -> list[FlakyJob]:
        """Jobs that ended in two ways with one identity, the newest first."""
        rows = self._select(
            "SELECT workspace, name, identity, sum(verdict = 'passed') AS passed,"
            f" sum(verdict IN ({_DID_NOT_PASS})) AS failed, max(first_entry) AS at FROM jobs"
            " WHERE identity IS NOT NULL GROUP BY identity, name, workspace"
            " HAVING passed > 0 AND failed > 0 ORDER BY at DESC LIMIT ?",
            (limit,),
        )
        newest = (
            "SELECT id FROM jobs WHERE identity = ? AND (verdict = 'passed') = ?"
            " ORDER BY first_entry DESC LIMIT 1"
        )
        found = []
        for workspace, name, identity, passed, failed, at in rows:
            examples = [self._select(newest, (identity, good))[0][0] for good in (1, 0)]
            found.append(
                FlakyJob(
                    workspace=workspace,
                    name=name,
                    identity=identity,
                    passed_count=passed,
                    failed_count=failed,
                    passed=examples[0],
                    failed=examples[1],
                    at=at,
                )
            )
        return found

    def flaky_tests(self: _Selects, identity: str, *, limit: int) -> list[FlakyTest]:
        """Test cases that passed and failed in jobs of an identity; what fails most comes first."""
        rows = self._select(
            "SELECT suite, tests.name, sum(outcome = ?) AS good,"
            f" sum({_TEST_FAILED}) AS bad FROM tests JOIN jobs ON jobs.id = tests.job"
            " WHERE identity = ? GROUP BY suite, tests.name HAVING good > 0 AND bad > 0"
            " ORDER BY bad DESC, tests.name LIMIT ?",
            (CaseOutcome.PASSED, identity, limit),
        )
        return [FlakyTest(suite=s, name=n, passed=good, failed=bad) for s, n, good, bad in rows]

    def case_outcomes(self: _Selects, job: str) -> dict[tuple[str, str], bool]:
        """Whether each test case of a job failed, by suite and name; skipped ones are left out.

        Of several with one name, whether one of them failed.
        """
        rows = self._select(
            f"SELECT suite, name, max({_TEST_FAILED}) FROM tests"
            " WHERE job = ? AND outcome <> ? GROUP BY suite, name",
            (job, CaseOutcome.SKIPPED),
        )
        return {(suite, name): bool(failed) for suite, name, failed in rows}
