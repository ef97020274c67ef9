"""The journal's file: creating it, and opening it for writing or reading.

A new journal is created under another name and renamed when it is complete. Nothing is written to a
journal before its version is known. A journal of a newer pikaci, a damaged or truncated one, and a
file that is not a journal are left unchanged, byte for byte.
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
    "restore a copy of the journal, or move what is left of it away: the next run creates a new"
    " one; logs and artifacts in `jobs/`, next to it, are unchanged"
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal for reading and writing; create or migrate it if necessary.

    Raises `JournalError` if it belongs to a newer pikaci, is damaged, or cannot be written.
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
    """Create an empty journal of our version, completely or not at all."""
    log = _wal(path)
    if log.exists() and log.stat().st_size:
        # SQLite would apply this log to the new journal.
        error = JournalDamaged(path, f"it is gone, but {log.name} is still there")
        error.resolution = _MOVE_AWAY
        raise error
    new = path.with_name(f"{path.name}.new")
    for left in path.parent.glob(f"{new.name}*"):
        left.unlink()  # left by a process that died here; we hold the lock
    with mapped_errors(path):
        with closing(_open(new)) as connection:
            # No write-ahead log: when it is closed, everything is in this one file.
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
    """Keep other processes from opening the journal during the block.

    When two processes switch a new file to the write-ahead log, SQLite fails one of them instead of
    letting it wait.
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
    """An additional connection, for reading, next to one of `connect`."""
    connection = _open(path)
    with mapped_errors(path):
        connection.execute("PRAGMA query_only = 1")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal without writing to it; an older version is migrated as a copy in memory.

    Works where nothing can be written. Raises `JournalError` if it belongs to a newer pikaci, or is
    damaged.
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
    """Open a journal of this or an older version, without writing anything."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(f"{path}: this is not a file", resolution="move it away")
    if not status.st_size:
        error = JournalDamaged(path, "the file is empty")
        error.resolution = _MOVE_AWAY
        raise error
    # A closed journal has no write-ahead log, and SQLite would create one to read it. "Immutable"
    # prevents that, but must not be used for a journal that has a log.
    try:
        how = "mode=ro" if _wal(path).stat().st_size else "immutable=1"
    except FileNotFoundError:  # the last process to close the journal deletes it
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
    """Write everything in the block, or nothing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back already; a second error must not hide the first.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
