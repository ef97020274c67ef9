"""What `pikaci trace` reads: one job that cannot be read hides none of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from orchestrator.cli.ending import print_error
from orchestrator.journal import JobUnreadable
from orchestrator.journal.reader import JournalReader
from orchestrator.tracing.timeline import Timeline, timeline
from states import events as ev
from states.errors import EntryError, IllegalEvent
from states.outcome import EXIT_CODES, Verdict

_T = TypeVar("_T")


def entries_of(journal: JournalReader, path: Path, job: str) -> list[ev.Entry]:
    """A job's entries, from its first event; `JobUnreadable` when there is none."""
    entries = [entry for _, entry in journal.entries(job)]
    if not any(isinstance(entry, ev.Event) for entry in entries):
        raise JobUnreadable(path, job, EntryError("it has no events"))
    return entries


def timeline_of(
    journal: JournalReader, path: Path, job: str, *, until: datetime | None = None
) -> Timeline:
    """A job's timeline; `JobUnreadable` when its events make no job."""
    entries = entries_of(journal, path, job)
    try:
        return timeline(entries, until=until)
    except IllegalEvent as error:
        raise JobUnreadable(path, job, error) from None


def read_each(jobs: Sequence[str], read: Callable[[str], _T]) -> tuple[list[_T], int]:
    """What `read` returns for each job that can be read, and an exit code.

    It says on stderr why it cannot read the others. `JobUnreadable` when it can read none.
    """
    found: list[_T] = []
    errors: list[JobUnreadable] = []
    for job in jobs:
        try:
            found.append(read(job))
        except JobUnreadable as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for unreadable in errors:
        print_error(unreadable)
    return found, EXIT_CODES[Verdict.INFRASTRUCTURE] if errors else 0
