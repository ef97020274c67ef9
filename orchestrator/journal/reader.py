"""Reading: lists from columns, and jobs from their events.

Each read has its own connection while it lasts. So reads can run in any thread, and none waits for
another, or for a write.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.journal.case_rows import CASE_COLUMNS, case_of
from orchestrator.journal.errors import JobUnreadable, JournalDamaged, reading
from orchestrator.journal.history import HistoryQueries
from orchestrator.journal.rows import COLUMNS, LONG_AGO, JobRow, Lease, job_row
from states import events as ev
from states import recorded
from states.errors import EntryError, PikaciError
from states.job import Job, Phase, fold
from states.lifecycle import TABLE, TERMINAL, State
from states.outcome import Verdict
from states.testcases import Case, CaseOutcome

if TYPE_CHECKING:
    from states.rules import CheckedSpec

_TYPES = ", ".join(f"'{trigger}'" for trigger, _, _ in TABLE)
_LEADS_TO = " ".join(f"WHEN '{trigger}' THEN '{state}'" for trigger, _, state in TABLE)
# A quick check without decoding: are there as many events as the last one's number says, all JSON
# and of known types, and does the last one (whose body `max(seq)` selects) lead to the state?
_READABLE = (
    "SELECT count(*) = (SELECT max(seq) FROM entries WHERE job = ?1)"
    f" AND (CASE json_extract(CAST(body AS TEXT), '$.type') {_LEADS_TO} END)"
    " IS (SELECT state FROM jobs WHERE id = ?1), max(seq) FROM entries"
    " WHERE job = ?1 AND seq IS NOT NULL AND iif(json_valid(CAST(body AS TEXT)),"
    f" json_extract(CAST(body AS TEXT), '$.type') IN ({_TYPES}), 0)"
)
_UNFINISHED = frozenset(State) - TERMINAL
# The names of a session's runs begin with its own, and a `-` if they go on.
_OF_SESSION = "(?1 IS NULL OR substr(run || '-', 1, length(?1) + 1) = ?1 || '-')"
# A warm guest has a session, and no job whose run has one.
_LEASES = (
    "(SELECT instance, job, coalesce(run, session) AS run, opened_at, deadline, kept, made,"
    " leases.host AS host, member, leases.attempt AS attempt"
    " FROM leases LEFT JOIN jobs ON jobs.id = leases.job"
    " WHERE leases.ended = 0 AND (jobs.id IS NOT NULL OR job = ''))"
)
# Few of the many notes are warnings; the type comes first in every stored body.
_EVENTS_AND_WARNINGS = (
    "SELECT body, state, jobs.ended, identity, verdict FROM entries"
    " LEFT JOIN jobs ON jobs.id = job WHERE job = ?"
    ' AND (seq IS NOT NULL OR substr(body, 1, 16) = CAST(\'{"type":"warned"\' AS BLOB))'
    " ORDER BY entries.id"
)


_NUMBER = re.compile("#?([0-9]{1,18})")  # SQLite's integers have more digits
_needs = msgspec.json.Decoder(dict[str, str])
# Idle connections kept for the next read; each holds up to three descriptors.
MAX_IDLE = 4


class JournalReader(HistoryQueries):
    """Reads a journal, through connections from `connect`."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path) -> None:
        self._connect = connect
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        self.damaged: set[str] = set()  # jobs that this process found unreadable

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with reading(self._path):
            try:
                connection = self._idle.pop()
            except IndexError:
                if self._closed:
                    raise sqlite3.ProgrammingError("its block has ended") from None
                connection = self._connect()
            try:
                yield connection
            finally:
                if len(self._idle) < MAX_IDLE:
                    self._idle.append(connection)
                else:
                    connection.close()
                if self._closed:
                    self.close()

    def close(self) -> None:
        """Close the connections; those in use are closed after their reads."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _select(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._reading() as connection:
            return connection.execute(statement, values).fetchall()

    @property
    def owner(self) -> str:
        """The random name of this state root, a tag on every instance that it creates."""
        return self._named("owner")

    @property
    def key(self) -> str:
        """The secret that the nonces of attempts are derived from; it is in no trace."""
        return self._named("key")

    def _named(self, name: str) -> str:
        try:
            return self.names[name]
        except KeyError:
            raise JournalDamaged(self._path, f"it has lost its {name}") from None

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """`owner` and `key`, as far as the journal has them. Read once, when it is opened."""
        return dict(self._select("SELECT key, value FROM meta"))

    # One job, from its entries.

    def bodies(self, job: str, *, after: int = 0, limit: int = -1) -> list[tuple[int, bytes]]:
        """`entries` in stored form."""
        return self._select(
            "SELECT id, body FROM entries WHERE job = ? AND id > ? ORDER BY id LIMIT ?",
            (job, after, limit),
        )

    def entries(self, job: str, *, after: int = 0, limit: int = -1) -> list[tuple[int, ev.Entry]]:
        """A job's entries after number `after`, with their numbers in the journal.

        At most `limit` of them, unless it is negative. `JobUnreadable` if one cannot be read.
        """
        try:
            return [
                (number, recorded.decode(body))
                for number, body in self.bodies(job, after=after, limit=limit)
            ]
        except EntryError as error:
            raise self._unreadable(job, error) from None

    def job(self, job: str) -> Job:
        """The job after all its events, with all warnings, including noted ones, and its flake.

        `JobUnreadable` if its events cannot be read or do not fit together.
        """
        found = self._select(_EVENTS_AND_WARNINGS, (job,))
        try:
            if not found:
                raise EntryError("it has no events")
            entries = [recorded.decode(body) for body, *_ in found]
            folded = fold(entry for entry in entries if isinstance(entry, ev.Event))
            _, state, ended, identity, verdict = found[-1]
            if (folded.id, folded.state, folded.ended) != (job, state, bool(ended)):
                raise EntryError(f"its events lead to {folded.state}, but {state} was recorded")
        except PikaciError as error:
            raise self._unreadable(job, error) from None
        noted = [entry.message for entry in entries if isinstance(entry, ev.Warned)]
        flake = self.flake(identity, verdict)
        if not noted and flake is None:
            return folded
        # Without duplicates: upkeep repeats its warnings.
        warnings = tuple(dict.fromkeys((*folded.warnings, *noted)))
        return msgspec.structs.replace(folded, warnings=warnings, flake=flake)

    def _unreadable(self, job: str, error: PikaciError) -> JobUnreadable:
        self.damaged.add(job)
        return JobUnreadable(self._path, job, error)

    def look(self, row: JobRow) -> Job:
        """The job of a row; if it cannot be read, what the row says, with its `damage`."""
        try:
            return self.job(row.id)
        except JobUnreadable as error:
            moments = {State.SUBMITTED: row.submitted, row.state: row.moved}
            return Job(
                id=row.id,
                run=row.run,
                name=row.name,
                state=row.state,
                attempt=row.attempt,
                workspace=row.workspace,
                phases=tuple(
                    Phase(state=state, entered_at=moment or LONG_AGO)
                    for state, moment in moments.items()
                ),
                damage=error.problem,
            )

    def judge(self, job: str) -> CheckedSpec:
        """Check the spec of a submitted job by today's rules, before it begins.

        Raises `SpecError` if they refuse it.
        """
        (found,) = self._select("SELECT body FROM entries WHERE job = ? AND seq = 1", (job,))
        return recorded.judge(found[0])

    def cases(
        self, job: str, *, outcomes: Sequence[CaseOutcome] = (), after: int = 0, limit: int = -1
    ) -> list[tuple[int, Case]]:
        """A job's test cases after number `after`, with their numbers, in the order of its reports.

        With `outcomes` only those that ended so. At most `limit` of them, unless it is negative.
        """
        rows = self._select(
            f"SELECT {CASE_COLUMNS} FROM tests WHERE job = ? AND number > ?"
            + (f" AND outcome IN ({', '.join('?' * len(outcomes))})" if outcomes else "")
            + " ORDER BY number LIMIT ?",
            (job, after, *outcomes, limit),
        )
        return [(row[0], case_of(row[1:])) for row in rows]

    # Lists, from columns.

    def jobs(self, *, run: str | None = None) -> list[JobRow]:
        """All jobs, or those of one run, the oldest first."""
        where, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        return self._job_rows(where, values)

    def find(self, job: str) -> JobRow | None:
        """A job by its id."""
        return next(iter(self._job_rows("WHERE id = ?", (job,))), None)

    def rows(self, jobs: Sequence[str]) -> list[JobRow]:
        """Jobs by their ids, the oldest first. Those that do not exist are left out."""
        return self._job_rows("WHERE id IN (SELECT value FROM json_each(?))", (_list(jobs),))

    def jobs_of_runs(self, runs: Sequence[str]) -> dict[str, list[str]]:
        """The ids of the jobs of each run, in their order; no run without a job."""
        found: dict[str, list[str]] = {}
        for run, job in self._select(
            "SELECT run, id FROM jobs WHERE run IN (SELECT value FROM json_each(?))"
            " ORDER BY first_entry",
            (_list(runs),),
        ):
            found.setdefault(run, []).append(job)
        return found

    def needs(self, run: str) -> dict[str, dict[str, str]]:
        """What the jobs of a run need: by job, the ids of others by name. From their first events.

        Those that need nothing, or whose event cannot be read, are left out.
        """
        rows = self._select(
            "SELECT job, json_extract(text, '$.needs') FROM"
            " (SELECT job, CAST(body AS TEXT) AS text FROM entries WHERE seq = 1"
            " AND job IN (SELECT id FROM jobs WHERE run = ?)) WHERE json_valid(text)",
            (run,),
        )
        found = {}
        for job, text in rows:
            try:
                needed = _needs.decode(text or "{}")
            except msgspec.MsgspecError:
                continue  # whoever reads the job is told
            if needed:
                found[job] = needed
        return found

    def first_failed(self, run: str) -> JobRow | None:
        """The job of a run that was the first to end without passing; skipped ones do not count."""
        rows = self._select(
            f"SELECT {COLUMNS} FROM jobs WHERE run = ? AND ended = 1"
            " AND verdict NOT IN (?, ?) ORDER BY moved_at LIMIT 1",
            (run, Verdict.PASSED, Verdict.SKIPPED),
        )
        return next(map(job_row, rows), None)

    def ended(self, job: str) -> bool:
        """Whether a job has ended; False if it is not known."""
        return bool(self._select("SELECT 1 FROM jobs WHERE id = ? AND ended = 1", (job,)))

    def run_of_key(self, key: str) -> str | None:
        """The run that was submitted under a key."""
        return next((row.run for row in self._job_rows("WHERE key = ?", (key,))), None)

    def run_of_number(self, word: str) -> str | None:
        """The run whose number the word is: `#6`, or `6`. None for any other word."""
        if (found := _NUMBER.fullmatch(word)) is None:
            return None
        rows = self._select("SELECT run FROM jobs WHERE number = ? LIMIT 1", (int(found[1]),))
        return next((run for (run,) in rows), None)

    def newest_number(self) -> int:
        """The largest number of a run; 0 if there is none."""
        ((number,),) = self._select("SELECT max(number) FROM jobs")
        return number or 0

    def newest(
        self, *, limit: int, before: int | None = None, **wanted: str | None
    ) -> list[tuple[int, JobRow]]:
        """Jobs with their positions in the journal, newest first, from before position `before`.

        `wanted` filters by `run`, `name`, `state` or `verdict`; None matches any value.
        """
        terms: dict[str, str | int] = {
            f"{column} = ?": value for column, value in wanted.items() if value is not None
        }
        if before is not None:
            terms["first_entry < ?"] = before
        # There is an index of the unfinished jobs, and nearly all of a large journal have ended.
        unfinished = ["ended = 0"] if wanted.get("state") in _UNFINISHED else []
        conditions = [*terms, *unfinished]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._select(
            f"SELECT {COLUMNS}, first_entry FROM jobs {where} ORDER BY first_entry DESC LIMIT ?",
            (*terms.values(), limit),
        )
        return [(row[-1], job_row(row[:-1])) for row in rows]

    def newest_runs(self, *, limit: int, before: int | None = None) -> list[tuple[int, str]]:
        """Runs with their positions in the journal, newest first, from before position `before`."""
        return self._select(
            "SELECT first_entry, run FROM jobs AS job"
            " WHERE (? IS NULL OR first_entry < ?) AND NOT EXISTS (SELECT 1 FROM jobs AS later"
            " WHERE later.run = job.run AND later.first_entry > job.first_entry)"
            " ORDER BY first_entry DESC LIMIT ?",
            (before, before, limit),
        )

    def runs(self) -> dict[str, list[JobRow]]:
        """All jobs by run, the oldest run first."""
        runs: dict[str, list[JobRow]] = {}
        for row in self.jobs():
            runs.setdefault(row.run, []).append(row)
        return runs

    def unfinished(self, *, session: str | None = None) -> list[JobRow]:
        """The unfinished jobs, or those of a session's runs, the oldest first."""
        return self._job_rows(f"WHERE ended = 0 AND {_OF_SESSION}", (session,))

    def unreadable(self, jobs: Iterable[str]) -> set[str]:
        """Those of the jobs whose events are damaged or of a newer pikaci, by a quick check.

        Only `job` knows for certain.
        """
        with self._reading() as connection:
            find = connection.execute
            found = {job for job in jobs if not find(_READABLE, (job,)).fetchone()[0]}
        self.damaged |= found
        return found

    def _job_rows(self, where: str, values: Sequence[str | None]) -> list[JobRow]:
        rows = self._select(f"SELECT {COLUMNS} FROM jobs {where} ORDER BY first_entry", values)
        return [job_row(row) for row in rows]

    def position(self) -> int:
        """The number of the newest entry; 0 if there is none."""
        ((number,),) = self._select("SELECT max(id) FROM entries")
        return number or 0

    def moves(self, *, after: int, limit: int) -> list[tuple[int, JobRow, ev.Event | None]]:
        """Events of all jobs after number `after`, each with its number and its job's row.

        None stands for an event that cannot be read.
        """
        rows = self._select(
            f"SELECT {COLUMNS}, entries.id, body FROM entries JOIN jobs ON jobs.id = job"
            " WHERE entries.id > ? AND seq IS NOT NULL ORDER BY entries.id LIMIT ?",
            (after, limit),
        )
        return [(row[-2], job_row(row[:-2]), _event(row[-1])) for row in rows]

    def hosts(self) -> list[str]:
        """The names of the hosts that instances were ever asked for on, "" for the local one."""
        return [host for (host,) in self._select("SELECT DISTINCT host FROM leases ORDER BY host")]

    def had_lease(self, instance: str) -> bool:
        """Whether a lease of this instance was ever opened."""
        return bool(self._select("SELECT 1 FROM leases WHERE instance = ?", (instance,)))

    def open_leases(self, *, session: str | None = None) -> list[Lease]:
        """The open leases, or those of a session's runs, the oldest first."""
        with reading(self._path):
            return [
                Lease(
                    instance,
                    job,
                    run,
                    datetime.fromisoformat(opened),
                    datetime.fromisoformat(deadline),
                    bool(kept),
                    bool(made),
                    *more,
                )
                for instance, job, run, opened, deadline, kept, made, *more in self._select(
                    f"SELECT * FROM {_LEASES} WHERE {_OF_SESSION} ORDER BY opened_at", (session,)
                )
            ]

    def kept_leases(self) -> list[Lease]:
        """The leases of guests kept for debugging whose time is not over, the oldest first."""
        moment = datetime.now(UTC)
        return [one for one in self.open_leases() if one.kept and one.deadline > moment]


def _list(names: Sequence[str]) -> str:
    return msgspec.json.encode(names).decode()


def _event(body: bytes) -> ev.Event | None:
    try:
        entry = recorded.decode(body)
    except EntryError:
        return None
    return entry if isinstance(entry, ev.Event) else None
