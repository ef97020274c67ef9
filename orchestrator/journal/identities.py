"""The identities of jobs, made from their entries: what each was run with, as a hash."""

from __future__ import annotations

import sqlite3

from states import events as ev
from states import recorded
from states.errors import PikaciError
from states.identity import identity
from states.job import fold
from states.lifecycle import State


def note_identity(connection: sqlite3.Connection, job: str) -> None:
    """Put the identity of a job with a result into its row, if its events can be read."""
    bodies = connection.execute(
        "SELECT body FROM entries WHERE job = ? AND seq IS NOT NULL ORDER BY seq", (job,)
    )
    try:
        entries = [recorded.decode(body) for (body,) in bodies]
        found = identity(fold(entry for entry in entries if isinstance(entry, ev.Event)))
    except PikaciError:
        return  # whoever reads the job is told
    connection.execute("UPDATE jobs SET identity = ? WHERE id = ?", (found, job))


def note_identities(connection: sqlite3.Connection) -> None:
    """The same for all jobs, for a journal that had no identities."""
    jobs = connection.execute(
        "SELECT id FROM jobs WHERE state = ?", (State.RESULT_COLLECTED,)
    ).fetchall()
    for (job,) in jobs:
        note_identity(connection, job)
