"""The journal's file: how it is opened, checked, and brought to this pikaci's version.

Nothing is written before the version is known. A journal of a newer pikaci, one that is
damaged, and a file that is no journal stay as they are, byte for byte.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import msgspec

from states.errors import PikaciError

SCHEMA_VERSION = 4
_BUSY_SECS = 30.0
# What the schema cannot draw: name, bytes of randomness, and the version that brought it.
_DRAWN = (("owner", 8, 1), ("key", 32, 2))

_SPACE = (
    "free some space on its disk (`pikaci gc` deletes old runs); then `pikaci resume` goes on"
    " with what was cut short"
)
_PERMISSIONS = "make the state root writable for you, or name another with --state-root"
_UNWRITABLE = {
    sqlite3.SQLITE_FULL: _SPACE,
    sqlite3.SQLITE_IOERR: _SPACE,
    sqlite3.SQLITE_READONLY: _PERMISSIONS,
    sqlite3.SQLITE_CANTOPEN: _PERMISSIONS,
    sqlite3.SQLITE_PERM: _PERMISSIONS,
}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


class JournalError(PikaciError):
    """The journal cannot be read or written."""


class JournalUnwritable(JournalError):
    """The disk is full or failing, or may not be written to."""


class JournalDamaged(JournalError):
    """The journal has something that pikaci did not write, or lacks what it did."""

    def __init__(self, path: Path, problem: object) -> None:
        super().__init__(
            f"{path}: the journal is damaged: {problem}",
            resolution="`pikaci doctor` says what can be saved",
        )


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """What SQLite says of the journal at `path`, as a `JournalError`."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise JournalError(
            f"{path}: the journal is not open: {error}",
            resolution="ask in the block that opened it; jobs that it left are the next start's",
        ) from error
    except sqlite3.Error as error:
        # The low byte is the kind of error, the others its details.
        kind = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if kind in _UNWRITABLE:
            raise JournalUnwritable(
                f"{path}: the journal cannot be used: {error}", resolution=_UNWRITABLE[kind]
            ) from error
        if kind in _BUSY:
            raise JournalError(
                f"{path}: another process does not let go of the journal: {error}",
                resolution="try again; `fuser` on the file names who has it open",
            ) from error
        raise JournalDamaged(path, error) from error
    except UnicodeDecodeError as error:  # of SQLite's own message about what it read
        raise JournalDamaged(path, error.reason) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """`mapped_errors`, and the errors of values that pikaci did not write."""
    with mapped_errors(path):
        try:
            yield
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise JournalDamaged(path, error) from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal to read and to write; make it, or bring it to our version, if need be.

    Raises `JournalError` when it is of a newer pikaci, is damaged, or cannot be written.
    """
    with _alone(path):
        if path.exists():
            connect_to_read(path).close()
        with mapped_errors(path):
            connection = sqlite3.connect(
                path, timeout=_BUSY_SECS, isolation_level=None, check_same_thread=False
            )
        try:
            with mapped_errors(path):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                with transaction(connection):
                    _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process opens the journal meanwhile.

    When two switch a new file to the write-ahead log, SQLite fails one instead of letting it wait.
    """
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise JournalUnwritable(
            f"{path}: the journal cannot be used: {error.strerror}", resolution=_PERMISSIONS
        ) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def connect_beside(path: Path) -> sqlite3.Connection:
    """A second connection, to read, beside one of `connect`."""
    with mapped_errors(path):
        connection = sqlite3.connect(
            path, timeout=_BUSY_SECS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only = 1")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal of our version, or an older one, without writing to it.

    It may lie where nothing can be written. Raises `JournalError` when it is of a newer pikaci,
    or damaged.
    """
    # A journal that was closed has no write-ahead log, and SQLite would make one to read it.
    # "Immutable" keeps it from that, and must not be said of a journal that has one.
    wal = path.with_name(f"{path.name}-wal")
    try:
        how = "mode=ro" if wal.stat().st_size else "immutable=1"
    except FileNotFoundError:  # it goes with the last process that closes the journal
        how = "immutable=1"
    with mapped_errors(path):
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(path.absolute()))}?{how}",
            uri=True,
            timeout=_BUSY_SECS,
            isolation_level=None,
            check_same_thread=False,
        )
    try:
        with mapped_errors(path):
            _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that the block writes is there at its end, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself; an error of ours must not hide the first one.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _check_version(connection: sqlite3.Connection, path: Path) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: the journal has version {version};"
            f" this pikaci knows version {SCHEMA_VERSION}",
            resolution="use the newer pikaci that wrote it, or another --state-root",
        )
    if version < 0 or (version == 0) != (tables == 0):
        raise JournalError(
            f"{path}: this database is no journal of pikaci",
            resolution="name another with --state-root, or move the file away",
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the journal to our version, step by step; the caller's transaction holds all steps."""
    version = _check_version(connection, path)
    if version == SCHEMA_VERSION:
        return
    for number in range(version + 1, SCHEMA_VERSION + 1):
        script = (files("orchestrator") / "schema" / f"{number:04}.sql").read_text()
        for statement in _statements(script):
            connection.execute(statement)
    for name, size, since in _DRAWN:
        if version < since:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)", (name, secrets.token_hex(size))
            )
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script (executescript would commit before the first)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `JournalDamaged` when SQLite finds the file's structure broken, or a name is lost."""
    with mapped_errors(path):
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise JournalDamaged(path, str(found).splitlines()[-1])
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        names = {name for (name,) in connection.execute("SELECT key FROM meta")}
    for name, _, since in _DRAWN:
        if since <= version and name not in names:
            raise JournalDamaged(path, f"it has lost its {name}")
