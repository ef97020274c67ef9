"""What a person means by a word: a job's id, a run's id or number, or a job's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.journal import JobRow, Journal, JournalReader
    from orchestrator.state_root import StateRoot


# The names of so many jobs may be meant by a word that is none.
RECENT = 1000


@contextmanager
def existing_journal(root: StateRoot) -> Iterator[Journal]:
    """The journal of a state root that has one."""
    from orchestrator.journal import open_journal

    _check_journal(root)
    with open_journal(root.journal) as journal:
        yield journal


@contextmanager
def read_existing_journal(root: StateRoot) -> Iterator[JournalReader]:
    """As `existing_journal`, for reading alone."""
    from orchestrator.journal import read_journal

    _check_journal(root)
    with read_journal(root.journal) as journal:
        yield journal


def _check_journal(root: StateRoot) -> None:
    if not os.path.exists(root.journal):
        raise UsageError(
            f"{root.path} has no journal: no job has run with this workspace and state root",
            resolution="use `pikaci run` first, or another --workspace or --state-root",
        )


def find_jobs(journal: JournalReader, word: str | None) -> list[JobRow]:
    """The jobs of a run, the one job of an id, or the newest job of a name.

    A run has an id and a number: `#6`, or `6` where no job has that name. Without a word, the jobs
    of the newest run. `UsageError` when there is none.
    """
    if word is None:
        found = [row for _, last in journal.newest(limit=1) for row in journal.jobs(run=last.run)]
    else:
        found = [row] if (row := journal.find(word)) else journal.jobs(run=word)
        found = found or [row for _, row in journal.newest(limit=1, name=word)]
        if not found and (run := journal.run_of_number(word)) is not None:
            found = journal.jobs(run=run)
    if not found:
        raise UsageError(
            f"there is no job or run {word!r}{_near(journal, word)}"
            if word
            else "there is no run yet",
            resolution="`pikaci list` lists them",
        )
    return found


def _near(journal: JournalReader, word: str) -> str:
    from states.mistakes import did_you_mean

    rows = [row for _, row in journal.newest(limit=RECENT)]
    return did_you_mean(word, {name for row in rows for name in (row.name, row.run, row.id)})


def find_job(journal: JournalReader, word: str | None) -> JobRow:
    """The one job that is meant; `UsageError` when a run with several jobs is."""
    found = find_jobs(journal, word)
    if len(found) > 1:
        names = ", ".join(f"{row.id} ({row.name})" for row in found)
        raise UsageError(
            f"the run {found[0].run} has several jobs", resolution=f"name one: {names}"
        )
    return found[0]
