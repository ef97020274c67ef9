"""The journal's file: how it is made, opened to write, and opened to read.

It is made under another name, and has its own when it is whole. Nothing is written to one before
its version is known. A journal of a newer pikaci, one that is damaged or cut short, and a file that
is no journal stay as they are, byte for byte.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from orchestrator.journal.errors import (
    PERMISSIONS,
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    mapped_errors,
)
from orchestrator.journal.migrations import SCHEMA_VERSION, check_version, migrate

__all__ = ["SCHEMA_VERSION", "connect", "connect_beside", "connect_to_read", "transaction"]

_BUSY_SECS = 30.0
_MOVE_AWAY = (
    "see `jobs/` beside it for logs and artifacts: they are as they were; put a copy of the journal"
    " back, or move what is left of it away: the next run makes a new one"
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal to read and to write; make it, or bring it to our version, if need be.

    Raises `JournalError` when it is of a newer pikaci, is damaged, or cannot be written.
    """
    with _alone(path), _mapped_os_errors(path):
        if not os.path.lexists(path):
            _make(path)
        _open_checked(path).close()
        connection = _open(path)
        try:
            with mapped_errors(path):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                with transaction(connection):
                    migrate(connection, check_version(connection, path))
        except BaseException:
            connection.close()
            raise
    return connection


def _make(path: Path) -> None:
    """Make an empty journal of our version: whole, or not there at all."""
    log = _wal(path)
    if log.exists() and log.stat().st_size:
        # SQLite would write what it has into the new one.
        error = JournalDamaged(path, f"it is gone, and {log.name} is still there")
        error.resolution = _MOVE_AWAY
        raise error
    new = path.with_name(f"{path.name}.new")
    for left in path.parent.glob(f"{new.name}*"):
        left.unlink()  # of one who died here; nobody else is
    with mapped_errors(path):
        with closing(_open(new)) as connection:
            # Without a log of its own: all is in the one file when it is closed.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = FULL")
            with transaction(connection):
                migrate(connection, 0)
        new.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process opens the journal meanwhile.

    When two switch a new file to the write-ahead log, SQLite fails one instead of letting it wait.
    """
    with _mapped_os_errors(path):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


@contextmanager
def _mapped_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalUnwritable(
            f"{path}: the journal cannot be used: {error.strerror}", resolution=PERMISSIONS
        ) from error


def connect_beside(path: Path) -> sqlite3.Connection:
    """A further connection, to read, beside one of `connect`."""
    connection = _open(path)
    with mapped_errors(path):
        connection.execute("PRAGMA query_only = 1")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal without writing to it; one of an older version is read as a copy in memory.

    It may lie where nothing can be written. Raises `JournalError` when it is of a newer pikaci,
    or damaged.
    """
    with _mapped_os_errors(path):
        connection = _open_checked(path)
    with mapped_errors(path):
        version = check_version(connection, path)
        if version == SCHEMA_VERSION:
            return connection
        with closing(connection):
            copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            try:
                connection.backup(copy)
                with transaction(copy):
                    migrate(copy, version)
            except BaseException:
                copy.close()
                raise
    return copy


def _open_checked(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, to a file that is a journal of ours or an older pikaci."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(f"{path}: this is no file", resolution="move it away")
    if not status.st_size:
        error = JournalDamaged(path, "the file is empty")
        error.resolution = _MOVE_AWAY
        raise error
    # A journal that was closed has no write-ahead log, and SQLite would make one to read it.
    # "Immutable" keeps it from that, and must not be said of a journal that has one.
    try:
        how = "mode=ro" if _wal(path).stat().st_size else "immutable=1"
    except FileNotFoundError:  # it goes with the last process that closes the journal
        how = "immutable=1"
    connection = _open(path, how)
    try:
        with mapped_errors(path):
            check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: Path, how: str = "") -> sqlite3.Connection:
    with mapped_errors(path):
        return sqlite3.connect(
            f"file:{quote(os.fsencode(path.absolute()))}?{how}",
            uri=True,
            timeout=_BUSY_SECS,
            isolation_level=None,
            check_same_thread=False,
        )


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that the block writes is there at its end, or nothing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself; an error of ours must not hide the first one.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
