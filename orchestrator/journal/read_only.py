"""A journal that is open for reading alone. Commands that only look start without trio."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from orchestrator.journal.errors import JournalUnwritable
from orchestrator.journal.file import connect, connect_beside, connect_to_read
from orchestrator.journal.reader import JournalReader


@contextmanager
def read_journal(path: Path) -> Iterator[JournalReader]:
    """Open a journal to read it, also where it cannot be written: on a full disk, or read-only.

    Raises `JournalDamaged`, and `JournalError` if it belongs to a newer pikaci; such journals are
    not modified.
    """
    with ExitStack() as opened:
        connect_reader: Callable[[], sqlite3.Connection]
        try:
            # An older journal is migrated once, and not in memory for each connection.
            opened.enter_context(closing(connect(path)))
            connect_reader = partial(connect_beside, path)
        except JournalUnwritable:
            if not path.exists():
                raise
            connect_reader = partial(connect_to_read, path)
        yield opened.enter_context(closing(JournalReader(connect_reader, path)))
