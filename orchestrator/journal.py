"""The journal: every event, durable before anyone is told of it and before the next effect.

SQLite with a write-ahead log and full synchronisation. One connection, used in one worker
thread at a time through a limiter of its own. Appends that arrive while a commit is going on
share the next one. Several processes may have a journal open.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import msgspec
import trio

from states import events as ev
from states.errors import PikaciError
from states.job import Job, fold
from states.lifecycle import TABLE, TERMINAL

SCHEMA_VERSION = 2
_BUSY_SECS = 30.0

_ENDING = frozenset(trigger for trigger, _, dest in TABLE if dest in TERMINAL)
_decoder = msgspec.json.Decoder(ev.Entry)


class JournalError(PikaciError):
    """The journal cannot be read or written."""


class NotTheWriter(JournalError):
    """Another process has moved the job; it is that process's to go on with."""


@dataclass(frozen=True)
class JobRow:
    """A job in a list."""

    id: str
    run: str
    name: str
    ended: bool


@dataclass(frozen=True)
class Lease:
    """An instance that may exist because of us, until Incus says that it does not."""

    instance: str
    job: str
    run: str
    opened_at: datetime
    deadline: datetime
    kept: bool


@dataclass
class _Batch:
    """Entries that are committed together; whoever appended to it learns the same outcome."""

    entries: list[ev.Entry] = field(default_factory=list)
    closed: bool = False
    error: JournalError | None = None


class Journal:
    """One state root's journal. Make it with `open_journal`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._limiter = trio.CapacityLimiter(1)
        self._lock = trio.Lock()
        self._open_batch = _Batch()
        self._observers: list[Callable[[ev.Entry], None]] = []

    def observe(self, observer: Callable[[ev.Entry], None]) -> None:
        """Call `observer` with every entry of this process, once it is durable."""
        self._observers.append(observer)

    def note(self, entry: ev.AnyNote) -> None:
        """Add a note that may be lost in a crash: it becomes durable with the next append."""
        self._open_batch.entries.append(entry)

    async def append(self, *entries: ev.Entry) -> None:
        """Return when the entries, and all notes before them, are durable.

        Raises `JournalError` when they are not. Not cut short by a cancellation: what was begun
        is known to be written or not.
        """
        batch = self._open_batch
        batch.entries.extend(entries)
        with trio.CancelScope(shield=True):
            async with self._lock:
                if not batch.closed:
                    await self._write(batch)
        if batch.error is not None:
            raise batch.error

    async def _write(self, batch: _Batch) -> None:
        batch.closed = True
        self._open_batch = _Batch()
        try:
            await trio.to_thread.run_sync(self._commit, batch.entries, limiter=self._limiter)
        except JournalError as error:
            batch.error = error
            return
        for entry in batch.entries:
            for observer in self._observers:
                observer(entry)

    def _commit(self, entries: Sequence[ev.Entry]) -> None:
        with _mapped_errors(self._path), self._transaction():
            for entry in entries:
                self._insert(entry)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _insert(self, entry: ev.Entry) -> None:
        execute = self._connection.execute
        seq = entry.seq if isinstance(entry, ev.Event) else None
        try:
            row = execute(
                "INSERT INTO entries (job, seq, body) VALUES (?, ?, ?)",
                (entry.job, seq, msgspec.json.encode(entry)),
            ).lastrowid
        except sqlite3.IntegrityError:
            raise NotTheWriter(
                f"{self._path}: another process has moved the job {entry.job}",
                resolution="`pikaci status` shows where it is",
            ) from None
        match entry:
            case ev.Submitted() | ev.Rejected():
                ended = isinstance(entry, ev.Rejected)
                execute(
                    "INSERT INTO jobs (id, run, name, first_entry, ended) VALUES (?, ?, ?, ?, ?)",
                    (entry.job, entry.run, entry.name, row, ended),
                )
            case ev.LeaseOpened():
                execute(
                    "INSERT INTO leases (instance, job, opened_at, deadline) VALUES (?, ?, ?, ?)",
                    (
                        entry.instance,
                        entry.job,
                        entry.at.isoformat(),
                        entry.deadline.isoformat(),
                    ),
                )
            case ev.LeaseKept():
                execute(
                    "UPDATE leases SET kept = 1, deadline = ? WHERE instance = ?",
                    (entry.deadline.isoformat(), entry.instance),
                )
            case ev.LeaseEnded():
                execute("UPDATE leases SET ended = 1 WHERE instance = ?", (entry.instance,))
            case ev.Event() if ev.tag(type(entry)) in _ENDING:
                execute("UPDATE jobs SET ended = 1 WHERE id = ?", (entry.job,))

    # Reading. These are short, and called from the command line and at start.

    @property
    def owner(self) -> str:
        """The random name of this state root, on every instance that it makes."""
        return self._meta("owner")

    @property
    def key(self) -> str:
        """What the nonces of this root's attempts are made from; it stands in no trace."""
        return self._meta("key")

    def _meta(self, key: str) -> str:
        with _mapped_errors(self._path):
            (value,) = self._connection.execute(
                "SELECT value FROM meta WHERE key = ?", (key,)
            ).fetchone()
        return str(value)

    def entries(self, job: str, *, after: int = 0) -> list[tuple[int, ev.Entry]]:
        """A job's entries with their numbers in the journal, from the one behind `after`."""
        with _mapped_errors(self._path):
            rows = self._connection.execute(
                "SELECT id, body FROM entries WHERE job = ? AND id > ? ORDER BY id", (job, after)
            ).fetchall()
            return [(number, _decoder.decode(body)) for number, body in rows]

    def job(self, job: str) -> Job:
        """The job as its events make it."""
        return fold(e for _, e in self.entries(job) if isinstance(e, ev.Event))

    def jobs(self, *, run: str | None = None) -> list[JobRow]:
        """All jobs, or those of one run, the oldest first."""
        where, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        return self._job_rows(where, values)

    def unfinished(self) -> list[JobRow]:
        """The jobs that have not ended, the oldest first."""
        return self._job_rows("WHERE ended = 0", ())

    def _job_rows(self, where: str, values: Sequence[str]) -> list[JobRow]:
        with _mapped_errors(self._path):
            rows = self._connection.execute(
                f"SELECT id, run, name, ended FROM jobs {where} ORDER BY first_entry", values
            ).fetchall()
        return [JobRow(id, run, name, bool(ended)) for id, run, name, ended in rows]

    def open_leases(self) -> list[Lease]:
        """The leases that have not ended, the oldest first."""
        with _mapped_errors(self._path):
            rows = self._connection.execute(
                "SELECT instance, job, run, opened_at, deadline, kept"
                " FROM leases JOIN jobs ON jobs.id = leases.job"
                " WHERE leases.ended = 0 ORDER BY opened_at"
            ).fetchall()
        return [
            Lease(
                instance,
                job,
                run,
                datetime.fromisoformat(opened),
                datetime.fromisoformat(deadline),
                bool(kept),
            )
            for instance, job, run, opened, deadline, kept in rows
        ]

    def forget(self, jobs: Sequence[str]) -> None:
        """Delete ended jobs and all their entries (`pikaci gc`)."""
        with _mapped_errors(self._path), self._transaction():
            for job in jobs:
                self._connection.execute("DELETE FROM entries WHERE job = ?", (job,))
                self._connection.execute("DELETE FROM leases WHERE job = ? AND ended = 1", (job,))
                self._connection.execute("DELETE FROM jobs WHERE id = ?", (job,))


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal, and make it when there is none.

    Raises `JournalError` when it is of a newer pikaci, is damaged, or cannot be written;
    nothing of it is overwritten then.
    """
    with _mapped_errors(path):
        connection = sqlite3.connect(
            path, timeout=_BUSY_SECS, isolation_level=None, check_same_thread=False
        )
    try:
        with _mapped_errors(path):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, path)
        yield Journal(connection, path)
    finally:
        connection.close()


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"{path}: the journal has version {version};"
                f" this pikaci knows version {SCHEMA_VERSION}",
                resolution="use the newer pikaci that wrote it, or another --state-root",
            )
        for number in range(version + 1, SCHEMA_VERSION + 1):
            script = (files("orchestrator") / "schema" / f"{number:04}.sql").read_text()
            for statement in _statements(script):
                connection.execute(statement)
        for since, name, size in ((1, "owner", 8), (2, "key", 32)):
            if version < since:
                connection.execute(
                    "INSERT INTO meta (key, value) VALUES (?, ?)", (name, secrets.token_hex(size))
                )
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script (executescript would commit before the first)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _mapped_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(
            f"{path}: the journal cannot be used: {error}",
            resolution="look at the disk's space and the file's permissions;"
            " `pikaci doctor` checks both, --state-root names another place",
        ) from error
    except msgspec.MsgspecError as error:
        raise JournalError(f"{path}: the journal has an entry that is not ours: {error}") from error
