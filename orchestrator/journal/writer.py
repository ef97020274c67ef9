"""Writing: every entry is durable before anyone sees it, and before the next effect.

One connection, used by one worker thread at a time, through its own limiter. Appends that arrive
during a commit share the next one.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
import trio

from orchestrator.journal.case_rows import INSERT_CASE, case_values
from orchestrator.journal.errors import KeptFull, NotTheWriter, mapped_errors
from orchestrator.journal.file import transaction
from orchestrator.journal.identities import note_identity
from orchestrator.journal.rows import INSERT_JOB, MOVE_JOB, first_values, next_values
from states import events as ev
from states.errors import PikaciError, WritableWorkspace
from states.job import verdict_of
from states.testcases import Case

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ev.Written)
_FIRST = (ev.Submitted, ev.Rejected)
_OF_LEASES = (ev.LeaseOpened, ev.LeaseClaimed, ev.LeaseKept, ev.LeaseEnded)
FORGOTTEN_AT_ONCE = 500
# Guests that a state root keeps at once; each has its memory and its disk.
MAX_KEPT = 10
# SQLite's busy handler sleeps up to 0.1 s: a shorter pause could pass unnoticed.
BUSY_POLL_SECS = 0.11
# No index leads to the leases of a job, so one statement deletes those of many.
_OF_JOBS = (
    "entries WHERE job",
    "tests WHERE job",
    "leases WHERE ended = 1 AND job",
    "jobs WHERE id",
)


@dataclass
class _Part:
    """The entries of one call, with test cases of their job: all are written, or none.

    They are `durable` when their commit has returned; `error` says why they were not written.
    """

    entries: tuple[ev.Entry, ...]
    cases: Sequence[Case] = ()
    durable: bool = False
    error: Exception | None = None
    bodies: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Encode and decode here, so that a bad entry fails in the call that brought it.
        self.bodies = tuple(map(_encoder.encode, self.entries))
        for body in self.bodies:
            _decoder.decode(body)
        for entry in self.entries:
            if isinstance(entry, ev.Submitted) and entry.spec.writable_workspace:
                raise WritableWorkspace  # a bug: such a spec is refused before it gets here

    @property
    def settled(self) -> bool:
        """Whether the outcome is known."""
        return self.durable or self.error is not None


class JournalWriter:
    """Appends to a journal, on its own connection."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._limiter = trio.CapacityLimiter(1)
        self._lock = trio.Lock()
        self._open_batch: list[_Part] = []
        self._untold: deque[ev.Entry] = deque()
        # As long as somebody waits for them.
        self._endings: WeakValueDictionary[str, trio.Event] = WeakValueDictionary()
        self._observers: list[Callable[[ev.Entry], None]] = []
        self.observer_error: Exception | None = None

    def observe(self, observer: Callable[[ev.Entry], None]) -> None:
        """Call `observer` with every entry of this process, once it is durable.

        An observer that raises is called no more; its error is raised when the journal is closed.
        """
        self._observers.append(observer)

    def ending(self, job: str) -> trio.Event:
        """Set when this process has written the end of the job.

        Get it before you look whether the job has ended; then you miss nothing.
        """
        ending = self._endings.get(job)
        if ending is None:
            ending = self._endings[job] = trio.Event()
        return ending

    def note(self, entry: ev.AnyNote) -> None:
        """Add a note that may be lost in a crash: it becomes durable with the next append."""
        self._open_batch.append(_Part((entry,)))

    async def append(self, *entries: ev.Entry, cases: Sequence[Case] = ()) -> None:
        """Return when the entries, and all notes before them, are durable.

        So are then the test `cases` of the job of the entries, instead of any that it had. Of an
        entry without a job, which is about a warm guest, only its lease is kept.
        Raises `NotTheWriter` if another process has written an event with the same number, and
        `JournalUnwritable` if nothing can be written, `KeptFull` for a `LeaseKept` when `MAX_KEPT`
        other guests are kept; then none of the entries is stored. Shielded
        from cancellation, so that the outcome is always known. If an interrupt breaks off a write
        that several calls share, each call writes its own entries again.
        """
        batch = self._open_batch
        mine = _Part(entries, cases)
        batch.append(mine)
        with trio.CancelScope(shield=True):
            async with self._lock:
                if not mine.settled:
                    await self._write(batch)
        if mine.error is not None:
            raise mine.error

    async def _write(self, batch: list[_Part]) -> None:
        if batch is self._open_batch:
            self._open_batch = []
        parts = [part for part in batch if not part.settled]
        try:
            await trio.to_thread.run_sync(self._commit, parts, limiter=self._limiter)
        except Exception as error:
            for part in parts:
                if not part.durable:
                    part.error = error
        while self._untold:
            self._tell(self._untold.popleft())

    def _tell(self, entry: ev.Entry) -> None:
        if isinstance(entry, ev.Event) and verdict_of(entry) is not None:
            ending = self._endings.pop(entry.job, None)
            if ending is not None:
                ending.set()
        for observer in list(self._observers):
            try:
                observer(entry)
            except Exception as error:
                # The entry is durable: an observer's error must not affect the job.
                self._observers.remove(observer)
                self.observer_error = self.observer_error or error

    def _commit(self, parts: Sequence[_Part]) -> None:
        with mapped_errors(self._path), transaction(self._connection):
            refused = [self._insert_part(part) for part in parts]
        for part, error in zip(parts, refused, strict=True):
            if error is None:
                part.durable = True
                self._untold.extend(entry for entry in part.entries if entry.job)
            else:
                part.error = error

    def _insert_part(self, part: _Part) -> PikaciError | None:
        self._connection.execute("SAVEPOINT part")
        error: PikaciError | None = None
        try:
            for entry, body in zip(part.entries, part.bodies, strict=True):
                self._insert(entry, body)
            if part.cases:
                self._insert_cases(part.entries[0].job, part.cases)
        except sqlite3.IntegrityError:
            # Only this part fails: what others appended at the same time is written.
            self._connection.execute("ROLLBACK TO part")
            error = NotTheWriter(
                f"{self._path}: another process has moved the job {entry.job}",
                resolution="`pikaci status` shows its state",
            )
        except KeptFull as full:
            self._connection.execute("ROLLBACK TO part")
            error = full
        self._connection.execute("RELEASE part")
        return error

    def _insert(self, entry: ev.Entry, body: bytes) -> None:
        seq = entry.seq if isinstance(entry, ev.Event) else None
        row = None
        if entry.job:
            row = self._connection.execute(
                "INSERT INTO entries (job, seq, body) VALUES (?, ?, ?)", (entry.job, seq, body)
            ).lastrowid
        if isinstance(entry, ev.Event):
            self._move(entry, row)
        elif isinstance(entry, _OF_LEASES):
            self._change_lease(entry)

    def _move(self, event: ev.AnyEvent, number: int | None) -> None:
        if not isinstance(event, _FIRST):
            self._connection.execute(MOVE_JOB, next_values(event))
            if isinstance(event, ev.DevicesConfigured):
                made = "UPDATE leases SET made = 1 WHERE instance = ?"
                self._connection.execute(made, (event.instance,))
            elif isinstance(event, ev.ResultCollected):
                note_identity(self._connection, event.job)
            return
        key = event.key if isinstance(event, ev.Submitted) else ""
        if key and self._run_of(key) not in (None, event.run):
            raise sqlite3.IntegrityError(f"{key} is the key of another run")
        self._connection.execute(
            INSERT_JOB, first_values(event, number, self._number_of(event.run))
        )

    def _number_of(self, run: str) -> int:
        """The number of a run: the one that it has, or the next."""
        execute = self._connection.execute
        known = execute("SELECT number FROM jobs WHERE run = ? LIMIT 1", (run,)).fetchone()
        if known is not None:
            return int(known[0])
        # `meta` knows the numbers of runs that `pikaci gc` has deleted too.
        (last,) = execute(
            "SELECT max(coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'runs'), 0),"
            " coalesce((SELECT max(number) FROM jobs), 0))"
        ).fetchone()
        execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('runs', ?)", (str(last + 1),))
        return int(last) + 1

    def _change_lease(
        self, note: ev.LeaseOpened | ev.LeaseClaimed | ev.LeaseKept | ev.LeaseEnded
    ) -> None:
        execute = self._connection.execute
        match note:
            case ev.LeaseOpened():
                execute(
                    "INSERT INTO leases (instance, job, host, member, opened_at, deadline, session)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(note.instance, note.job, note.host, note.member),
                        *(note.at.isoformat(), note.deadline.isoformat(), note.session),
                    ),
                )
            case ev.LeaseClaimed():
                claimed = execute(
                    "UPDATE leases SET job = ?1, attempt = ?2, deadline = ?3, made = 1"
                    " WHERE instance = ?4 AND job IN ('', ?1) AND ended = 0",
                    (note.job, note.attempt, note.deadline.isoformat(), note.instance),
                )
                if claimed.rowcount != 1:
                    raise sqlite3.IntegrityError(f"{note.instance} is another job's, or gone")
            case ev.LeaseKept():
                self._check_room(note)
                execute(
                    "UPDATE leases SET kept = 1, deadline = ? WHERE instance = ?",
                    (note.deadline.isoformat(), note.instance),
                )
            case ev.LeaseEnded() if not note.job:
                # Nothing else tells of it, and its name is never used again.
                execute("DELETE FROM leases WHERE instance = ? AND job = ''", (note.instance,))
            case ev.LeaseEnded():
                execute("UPDATE leases SET ended = 1 WHERE instance = ?", (note.instance,))

    def _check_room(self, note: ev.LeaseKept) -> None:
        # In the transaction that keeps it: jobs of any process that end together must not all take
        # the last place.
        (others,) = self._connection.execute(
            "SELECT count(*) FROM leases"
            " WHERE ended = 0 AND kept = 1 AND deadline > ? AND instance != ?",
            (note.at.isoformat(), note.instance),
        ).fetchone()
        if others >= MAX_KEPT:
            raise KeptFull(
                f"{others} guests are kept already, which is the limit",
                resolution="`pikaci release` makes room",
            )

    def _insert_cases(self, job: str, cases: Sequence[Case]) -> None:
        self._connection.execute("DELETE FROM tests WHERE job = ?", (job,))
        self._connection.executemany(INSERT_CASE, case_values(job, cases))

    def _run_of(self, key: str) -> str | None:
        # On the writing connection, which waits for other processes' uncommitted writes.
        found = self._connection.execute("SELECT run FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def forget(self, jobs: Sequence[str]) -> None:
        """Delete ended jobs and all their entries (`pikaci gc`).

        Some hundreds at a time, with pauses in which other processes can write.
        """
        for start in range(0, len(jobs), FORGOTTEN_AT_ONCE):
            if start:
                time.sleep(BUSY_POLL_SECS)
            some = _encoder.encode(jobs[start : start + FORGOTTEN_AT_ONCE]).decode()
            with mapped_errors(self._path), transaction(self._connection):
                for where in _OF_JOBS:
                    statement = f"DELETE FROM {where} IN (SELECT value FROM json_each(?))"
                    self._connection.execute(statement, (some,))
