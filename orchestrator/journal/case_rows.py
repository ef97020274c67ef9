"""Rows for the test cases of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from states.testcases import Case, CaseOutcome

CASE_COLUMNS = "number, suite, name, file, outcome, secs, message"
INSERT_CASE = f"INSERT INTO tests (job, {CASE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def case_values(job: str, cases: Sequence[Case]) -> Iterator[tuple[Any, ...]]:
    """The values of a job's rows, for `INSERT_CASE`; they are numbered from 1."""
    for number, case in enumerate(cases, 1):
        yield job, number, case.suite, case.name, case.file, case.outcome, case.secs, case.message


def case_of(values: Sequence[Any]) -> Case:
    """A case from the values of `CASE_COLUMNS`, without its number."""
    suite, name, file, outcome, secs, message = values
    return Case(
        name=name,
        suite=suite,
        file=file,
        outcome=CaseOutcome(outcome),
        secs=secs,
        message=message,
    )
