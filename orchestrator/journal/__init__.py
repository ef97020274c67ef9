"""The journal: every event, durable before anyone sees it and before the next effect.

SQLite with a write-ahead log and full synchronisation. Several processes may open a journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from orchestrator.journal.errors import (
    JobUnreadable,
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    NotTheWriter,
)
from orchestrator.journal.file import connect, connect_beside, connect_to_read
from orchestrator.journal.reader import JournalReader
from orchestrator.journal.rows import JobRow, Lease
from orchestrator.journal.writer import JournalWriter

__all__ = [
    "JobRow",
    "JobUnreadable",
    "Journal",
    "JournalDamaged",
    "JournalError",
    "JournalUnwritable",
    "Lease",
    "NotTheWriter",
    "open_journal",
]


class Journal(JournalReader, JournalWriter):
    """The journal of one state root, for reading and writing, from `open_journal`."""

    def __init__(
        self, writer: sqlite3.Connection, reader: Callable[[], sqlite3.Connection], path: Path
    ) -> None:
        JournalReader.__init__(self, reader, path)
        JournalWriter.__init__(self, writer, path)


@contextmanager
def open_journal(path: Path, *, only_reading: bool = False) -> Iterator[Journal]:
    """Open a journal; create it if there is none.

    With `only_reading`, a journal that cannot be written, on a full disk or read-only, can still be
    read; otherwise that raises `JournalUnwritable`. Raises `JournalDamaged`, and `JournalError` if
    it belongs to a newer pikaci; such journals are not modified.
    """
    with ExitStack() as opened:
        try:
            writer = opened.enter_context(closing(connect(path)))
            reader = partial(connect_beside, path)
        except JournalUnwritable:
            if not (only_reading and path.exists()):
                raise
            reader = partial(connect_to_read, path)
            writer = opened.enter_context(closing(reader()))
        journal = opened.enter_context(closing(Journal(writer, reader, path)))
        yield journal
        if journal.observer_error is not None:
            raise journal.observer_error
