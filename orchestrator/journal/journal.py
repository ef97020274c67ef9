"""A journal that is open for reading and writing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from orchestrator.journal.errors import JournalError
from orchestrator.journal.file import connect, connect_beside
from orchestrator.journal.reader import JournalReader
from orchestrator.journal.writer import JournalWriter


class Journal(JournalReader, JournalWriter):
    """The journal of one state root, for reading and writing, from `open_journal`."""

    def __init__(
        self, writer: sqlite3.Connection, reader: Callable[[], sqlite3.Connection], path: Path
    ) -> None:
        JournalReader.__init__(self, reader, path)
        JournalWriter.__init__(self, writer, path)


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal; create it if there is none.

    Raises `JournalUnwritable`, `JournalDamaged`, and `JournalError` if it belongs to a newer
    pikaci; such journals are not modified.
    """
    with (
        closing(connect(path)) as writer,
        closing(Journal(writer, partial(connect_beside, path), path)) as journal,
    ):
        with suppress(JournalError):  # a damaged journal can still be read in part
            _ = journal.names  # here, in the caller's thread, and not in a loop that needs them
        yield journal
        if journal.observer_error is not None:
            raise journal.observer_error
