"""The journal: every event, durable before anyone is told of it and before the next effect.

SQLite with a write-ahead log and full synchronisation. One connection to write with, used in one
worker thread at a time through a limiter of its own, and one to read with, so that no reader
waits for a disk. Appends that arrive while a commit is going on share the next one. Several
processes may have a journal open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import trio

from orchestrator.journal_file import (
    JournalDamaged,
    JournalError,
    JournalUnwritable,
    connect,
    connect_beside,
    connect_to_read,
    mapped_errors,
    reading,
    transaction,
)
from states import events as ev
from states.errors import PikaciError
from states.job import Job, fold, verdict_of
from states.lifecycle import TABLE, TERMINAL, State
from states.outcome import Verdict

__all__ = [
    "JobRow",
    "Journal",
    "JournalDamaged",
    "JournalError",
    "JournalUnwritable",
    "Lease",
    "NotTheWriter",
    "open_journal",
]

# An event leads to one state, wherever it comes from.
_DESTINATIONS = {trigger: state for trigger, _, state in TABLE}
_decoder = msgspec.json.Decoder(ev.Entry)
_events = msgspec.json.Decoder(ev.AnyEvent)


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
class _Appended:
    """What one call brought: it is written whole or not at all, and `error` says why not."""

    entries: tuple[ev.Entry, ...]
    error: Exception | None = None
    bodies: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Here, so that who brought an entry that cannot be encoded, or that nobody could read
        # again, is who hears of it.
        self.bodies = tuple(msgspec.json.encode(entry) for entry in self.entries)
        for body in self.bodies:
            _decoder.decode(body)


@dataclass
class _Batch:
    """What is committed together, in the order in which it came."""

    parts: list[_Appended] = field(default_factory=list)
    closed: bool = False


class Journal:
    """One state root's journal, on a connection that `open_journal` makes."""

    def __init__(
        self, connection: sqlite3.Connection, reader: sqlite3.Connection, path: Path
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._path = path
        self._limiter = trio.CapacityLimiter(1)
        self._lock = trio.Lock()
        self._open_batch = _Batch()
        self._observers: list[Callable[[ev.Entry], None]] = []
        self.deaf: Exception | None = None

    def observe(self, observer: Callable[[ev.Entry], None]) -> None:
        """Call `observer` with every entry of this process, once it is durable.

        One that raises hears no more; its error is raised when the journal is closed.
        """
        self._observers.append(observer)

    def note(self, entry: ev.AnyNote) -> None:
        """Add a note that may be lost in a crash: it becomes durable with the next append."""
        self._open_batch.parts.append(_Appended((entry,)))

    async def append(self, *entries: ev.Entry) -> None:
        """Return when the entries, and all notes before them, are durable.

        Raises `NotTheWriter` when another process has written an event of the same number, and
        `JournalUnwritable` when nothing can be written; then none of the entries is there. Not cut
        short by a cancellation: what was begun is known to be written or not.
        """
        batch = self._open_batch
        mine = _Appended(entries)
        batch.parts.append(mine)
        with trio.CancelScope(shield=True):
            async with self._lock:
                if not batch.closed:
                    await self._write(batch)
        if mine.error is not None:
            raise mine.error

    async def _write(self, batch: _Batch) -> None:
        batch.closed = True
        self._open_batch = _Batch()
        try:
            await trio.to_thread.run_sync(self._commit, batch.parts, limiter=self._limiter)
        except Exception as error:
            for part in batch.parts:
                part.error = error
        for part in batch.parts:
            if part.error is None:
                for entry in part.entries:
                    self._tell(entry)

    def _tell(self, entry: ev.Entry) -> None:
        for observer in list(self._observers):
            try:
                observer(entry)
            except Exception as error:
                # The entry is durable: what a listener does with it is no fault of the job's.
                self._observers.remove(observer)
                self.deaf = self.deaf or error

    def _commit(self, parts: Sequence[_Appended]) -> None:
        with mapped_errors(self._path), transaction(self._connection):
            for part in parts:
                self._insert_part(part)

    def _insert_part(self, part: _Appended) -> None:
        self._connection.execute("SAVEPOINT part")
        try:
            for entry, body in zip(part.entries, part.bodies, strict=True):
                self._insert(entry, body)
        except sqlite3.IntegrityError:
            # Theirs alone: what others appended at the same time is written.
            self._connection.execute("ROLLBACK TO part")
            part.error = NotTheWriter(
                f"{self._path}: another process has moved the job {entry.job}",
                resolution="`pikaci status` shows where it is",
            )
        self._connection.execute("RELEASE part")

    def _insert(self, entry: ev.Entry, body: bytes) -> None:
        execute = self._connection.execute
        seq = entry.seq if isinstance(entry, ev.Event) else None
        row = execute(
            "INSERT INTO entries (job, seq, body) VALUES (?, ?, ?)",
            (entry.job, seq, body),
        ).lastrowid
        match entry:
            case ev.Submitted() | ev.Rejected():
                ended = isinstance(entry, ev.Rejected)
                key = entry.key or None if isinstance(entry, ev.Submitted) else None
                if key is not None and self._run_of(key) not in (None, entry.run):
                    raise sqlite3.IntegrityError(f"{key} is the key of another run")
                execute(
                    "INSERT INTO jobs (id, run, name, first_entry, ended, key, state, verdict)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (entry.job, entry.run, entry.name, row, ended, key, *_where(entry)),
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
            case ev.Event():
                state, verdict = _where(entry)
                execute(
                    "UPDATE jobs SET state = ?, verdict = ?, ended = ? WHERE id = ?",
                    (state, verdict, state in TERMINAL, entry.job),
                )

    def _run_of(self, key: str) -> str | None:
        # On the writing connection: what others have not committed yet is waited for.
        found = self._connection.execute("SELECT run FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

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
        with reading(self._path):
            row = self._reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise JournalDamaged(self._path, f"it has lost its {key}")
        return str(row[0])

    def entries(self, job: str, *, after: int = 0, limit: int = -1) -> list[tuple[int, ev.Entry]]:
        """A job's entries with their numbers in the journal, from the one behind `after`.

        At most `limit` of them, when it is not negative.
        """
        with reading(self._path):
            rows = self._reader.execute(
                "SELECT id, body FROM entries WHERE job = ? AND id > ? ORDER BY id LIMIT ?",
                (job, after, limit),
            ).fetchall()
            return [(number, _decoder.decode(body)) for number, body in rows]

    def job(self, job: str) -> Job:
        """The job as its events make it, with all of its warnings, also those noted beside them.

        `JournalDamaged` when the events do not make a job.
        """
        entries = [entry for _, entry in self.entries(job)]
        events = [entry for entry in entries if isinstance(entry, ev.Event)]
        noted = [entry.message for entry in entries if isinstance(entry, ev.Warned)]
        try:
            if events:
                found = fold(events)
                # Once each: what upkeep fails at, it fails at again.
                warnings = tuple(dict.fromkeys((*found.warnings, *noted)))
                return msgspec.structs.replace(found, warnings=warnings)
            problem = "it has no events"
        except PikaciError as error:
            problem = error.brief
        raise JournalDamaged(self._path, f"the job {job} cannot be read: {problem}")

    def jobs(self, *, run: str | None = None) -> list[JobRow]:
        """All jobs, or those of one run, the oldest first."""
        where, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        return self._job_rows(where, values)

    def find(self, job: str) -> JobRow | None:
        """A job by its id."""
        return next(iter(self._job_rows("WHERE id = ?", (job,))), None)

    def ended(self, job: str) -> bool:
        """Whether a job has ended; one that is not known has not."""
        row = self.find(job)
        return row is not None and row.ended

    def run_of_key(self, key: str) -> str | None:
        """The run that was submitted under a key."""
        return next((row.run for row in self._job_rows("WHERE key = ?", (key,))), None)

    def newest(
        self, *, limit: int, before: int | None = None, **wanted: str | None
    ) -> list[tuple[int, JobRow]]:
        """Jobs with their places in the journal, the newest first, from the place `before`.

        `wanted` are values that their `run`, `name`, `state` or `verdict` has; None is any.
        """
        terms: dict[str, str | int] = {
            f"{column} = ?": value for column, value in wanted.items() if value is not None
        }
        if before is not None:
            terms["first_entry < ?"] = before
        where = f"WHERE {' AND '.join(terms)}" if terms else ""
        with reading(self._path):
            rows = self._reader.execute(
                f"SELECT first_entry, id, run, name, ended FROM jobs {where}"
                " ORDER BY first_entry DESC LIMIT ?",
                (*terms.values(), limit),
            ).fetchall()
        return [(place, JobRow(id, run, name, bool(ended))) for place, id, run, name, ended in rows]

    def newest_runs(self, *, limit: int, before: int | None = None) -> list[tuple[int, str]]:
        """Runs with their places in the journal, the newest first, from the place `before`."""
        with reading(self._path):
            return self._reader.execute(
                "SELECT first_entry, run FROM jobs AS job"
                " WHERE (? IS NULL OR first_entry < ?) AND NOT EXISTS (SELECT 1 FROM jobs AS later"
                " WHERE later.run = job.run AND later.first_entry > job.first_entry)"
                " ORDER BY first_entry DESC LIMIT ?",
                (before, before, limit),
            ).fetchall()

    def position(self) -> int:
        """The number of the newest entry; 0 when there is none."""
        with reading(self._path):
            (number,) = self._reader.execute("SELECT max(id) FROM entries").fetchone()
        return number or 0

    def moves(self, *, after: int, limit: int) -> list[tuple[int, JobRow, ev.Event]]:
        """Events of all jobs, each with its number and its job's row, from behind `after`."""
        with reading(self._path):
            rows = self._reader.execute(
                "SELECT entries.id, body, jobs.id, run, name, ended FROM entries"
                " JOIN jobs ON jobs.id = job WHERE entries.id > ? AND seq IS NOT NULL"
                " ORDER BY entries.id LIMIT ?",
                (after, limit),
            ).fetchall()
            return [(row[0], JobRow(*row[2:]), _events.decode(row[1])) for row in rows]

    def runs(self) -> dict[str, list[JobRow]]:
        """All jobs by their runs, the oldest run first; runs that began at once stand mixed."""
        runs: dict[str, list[JobRow]] = {}
        for row in self.jobs():
            runs.setdefault(row.run, []).append(row)
        return runs

    def unfinished(self) -> list[JobRow]:
        """The jobs that have not ended, the oldest first."""
        return self._job_rows("WHERE ended = 0", ())

    def _job_rows(self, where: str, values: Sequence[str]) -> list[JobRow]:
        with reading(self._path):
            rows = self._reader.execute(
                f"SELECT id, run, name, ended FROM jobs {where} ORDER BY first_entry", values
            ).fetchall()
        return [JobRow(id, run, name, bool(ended)) for id, run, name, ended in rows]

    def open_leases(self) -> list[Lease]:
        """The leases that have not ended, the oldest first."""
        with reading(self._path):
            rows = self._reader.execute(
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
        with mapped_errors(self._path), transaction(self._connection):
            for job in jobs:
                self._connection.execute("DELETE FROM entries WHERE job = ?", (job,))
                self._connection.execute("DELETE FROM leases WHERE job = ? AND ended = 1", (job,))
                self._connection.execute("DELETE FROM jobs WHERE id = ?", (job,))


def _where(event: ev.Event) -> tuple[State, Verdict | None]:
    """The state, and the verdict, that a job has from the event on."""
    return _DESTINATIONS[ev.tag(type(event))], verdict_of(event)


@contextmanager
def open_journal(path: Path, *, only_reading: bool = False) -> Iterator[Journal]:
    """Open a journal, and make it when there is none.

    Who is `only_reading` can also read one that cannot be written: it lies on a full disk, or is
    read-only. Raises `JournalUnwritable` for all others, `JournalDamaged`, and `JournalError`
    when it is of a newer pikaci. Nothing of it is overwritten then.
    """
    with ExitStack() as connections:
        try:
            connection = connections.enter_context(closing(connect(path)))
            reader = connections.enter_context(closing(connect_beside(path)))
        except JournalUnwritable:
            if not (only_reading and path.exists()):
                raise
            connection = reader = connections.enter_context(closing(connect_to_read(path)))
        journal = Journal(connection, reader, path)
        yield journal
        if journal.deaf is not None:
            raise journal.deaf
