"""What `pikaci trace diff` compares: two jobs, or one with the last of its name that passed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.documents import DifferenceReport, DifferenceRow
from orchestrator.cli.find import find_job, read_existing_journal
from orchestrator.cli.trace_read import timeline_of
from orchestrator.errors import UsageError
from orchestrator.journal import JobRow
from orchestrator.state_root import StateRoot
from orchestrator.tracing.difference import Difference, difference
from orchestrator.tracing.timeline import Timeline, timeline
from states import trace
from states.changes import Change, TestChanges, case_changes, changes
from states.errors import TraceError


@dataclass(frozen=True)
class Compared:
    """Two jobs compared. `tests` is None if none differs, or if one of them is a trace file."""

    difference: Difference
    changes: tuple[Change, ...]
    tests: TestChanges | None


def compare(root: StateRoot, one: str, other: str | None) -> Compared:
    """Compare what two words name: jobs, or trace files. `UsageError` if one names neither.

    Without `other`, `one` is compared with the last job of its name that passed before it.
    """
    if other is None:
        if os.path.lexists(one):
            raise UsageError(
                f"{one} is a trace file, which does not say what passed before it",
                resolution="name two to compare: `pikaci trace diff FILE FILE`",
            )
        one, other = _last_passed(root, one), one
    sides = [_side(root, word) for word in (one, other)]
    (first, first_row), (second, second_row) = sides
    tests = None
    if first_row is not None and second_row is not None:
        with read_existing_journal(root) as journal:
            outcomes = [journal.case_outcomes(row.id) for row in (first_row, second_row)]
        tests = case_changes(*outcomes) if all(outcomes) else None
    return Compared(difference(first, second), changes(first.job, second.job), tests)


def difference_report(compared: Compared) -> DifferenceReport:
    """The document of a comparison."""
    found = compared.difference
    rows = tuple(
        DifferenceRow(
            state=row.state, effect=row.effect, one=row.one, other=row.other, notable=row.notable
        )
        for row in found.rows
    )
    return DifferenceReport(
        one=found.one.id,
        other=found.other.id,
        same_outcome=found.same_outcome,
        same_path=found.same_path,
        notable=found.notable,
        rows=rows,
        changes=compared.changes,
        tests=compared.tests,
    )


def _last_passed(root: StateRoot, word: str) -> str:
    with read_existing_journal(root) as journal:
        row = find_job(journal, word)
        passed = journal.last_passed(row)
    if passed is None:
        raise UsageError(
            f"no job {row.name} passed before {row.id}",
            resolution="name two jobs to compare: `pikaci trace diff JOB JOB`",
        )
    return passed.id


def _side(root: StateRoot, word: str) -> tuple[Timeline, JobRow | None]:
    """A job's timeline and row, or that of a trace file, which has no row."""
    if not os.path.lexists(word):
        with read_existing_journal(root) as journal:
            row = find_job(journal, word)
            return timeline_of(journal, root.journal, row.id), row
    first, *others = trace.split(read_trace(Path(word)))
    if others:
        raise UsageError(
            f"{word} has {len(others) + 1} traces, and only single traces can be compared",
            resolution="`pikaci trace export JOB` writes one",
        )
    try:
        trace.replay(first[1])
    except TraceError as error:
        raise UsageError(f"{word}: {error.brief}", resolution=error.resolution) from None
    return timeline(trace.decode(first[1])), None


def read_trace(file: Path) -> bytes:
    """The bytes of a trace file; `UsageError` if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {error.strerror}",
            resolution="name a file of `pikaci trace export`",
        ) from None
