"""Errors of the journal, and the mapping of SQLite's errors to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from states.errors import NewerEntry, PikaciError

_SPACE = (
    "free some space on its disk (`pikaci gc` deletes old runs); then `pikaci resume`"
    " resumes what was interrupted"
)
PERMISSIONS = "make the state root writable for you, or name another with --state-root"
_UNWRITABLE = {
    sqlite3.SQLITE_FULL: _SPACE,
    sqlite3.SQLITE_IOERR: _SPACE,
    sqlite3.SQLITE_READONLY: PERMISSIONS,
    sqlite3.SQLITE_CANTOPEN: PERMISSIONS,
    sqlite3.SQLITE_PERM: PERMISSIONS,
}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


class JournalError(PikaciError):
    """The journal cannot be read or written."""


class JournalUnwritable(JournalError):
    """The disk is full or failing, or not writable."""


class NotTheWriter(JournalError):
    """Another process has moved the job, and drives it now."""


class KeptFull(PikaciError):
    """As many guests as may be are kept already, by all processes of the state root."""


class JournalDamaged(JournalError):
    """The journal contains what pikaci did not write, or lacks what it wrote."""

    def __init__(self, path: Path, problem: object) -> None:
        super().__init__(
            f"{path}: the journal is damaged: {problem}",
            resolution="`pikaci doctor` says what can be saved",
        )


class JobUnreadable(JournalDamaged):
    """The events of one job cannot be read. Other jobs are not affected.

    `problem` says why; `newer` is True if a newer pikaci can read them.
    """

    def __init__(self, path: Path, job: str, error: PikaciError) -> None:
        super().__init__(path, f"the job {job} cannot be read: {error.brief}")
        self.problem = error.brief
        self.resolution = error.resolution or self.resolution
        self.newer = isinstance(error, NewerEntry)


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors about the journal at `path` as a `JournalError`."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise JournalError(
            f"{path}: the journal is not open: {error}",
            resolution="use it inside the block that opened it; the next start resumes its jobs",
        ) from error
    except sqlite3.Error as error:
        # The low byte is the kind of error; the others are details.
        kind = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if kind in _UNWRITABLE:
            raise JournalUnwritable(
                f"{path}: the journal cannot be used: {error}", resolution=_UNWRITABLE[kind]
            ) from error
        if kind in _BUSY:
            raise JournalError(
                f"{path}: another process keeps the journal locked: {error}",
                resolution="try again; `fuser` on the file shows which process has it open",
            ) from error
        raise JournalDamaged(path, error) from error
    except UnicodeDecodeError as error:  # in SQLite's own message about bad data
        raise JournalDamaged(path, error.reason) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """`mapped_errors`, and `JournalDamaged` for values that pikaci did not write."""
    with mapped_errors(path):
        try:
            yield
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise JournalDamaged(path, error) from error
