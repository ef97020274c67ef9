"""What the journal knows of jobs and leases without reading their events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from states import events as ev
from states.job import verdict_of
from states.lifecycle import TABLE, TERMINAL, State
from states.outcome import Outcome, Verdict

MAX_MESSAGE = 1000
LONG_AGO = datetime.fromtimestamp(0, UTC)  # for a time that a damaged row does not tell
# An event leads to one state, wherever it comes from.
_LEADS_TO = {trigger: state for trigger, _, state in TABLE}
_DESTINATIONS = {kind: _LEADS_TO[ev.tag(kind)] for kind in ev.EVENT_TYPES}
_STATES = {state.value: state for state in State}
_VERDICTS = {verdict.value: verdict for verdict in Verdict}


class JobRow(msgspec.Struct, frozen=True, gc=False):
    """A job in a list, from columns that every event keeps up to date.

    `message` says why the job did not pass. `snapshot`, `commit` and `dirty` are the tree that it
    sees. Times are ISO 8601, None where there is none, or where a damaged row does not tell.
    """

    id: str
    run: str
    name: str
    ended: bool
    state: State
    verdict: Verdict | None
    attempt: int
    submitted_at: str | None
    begun_at: str | None
    moved_at: str | None
    workspace: str
    snapshot: str | None
    commit: str | None
    dirty: bool
    message: str

    @property
    def submitted(self) -> datetime | None:
        """When it came."""
        return _moment(self.submitted_at)

    @property
    def begun(self) -> datetime | None:
        """When it first left the queue."""
        return _moment(self.begun_at)

    @property
    def moved(self) -> datetime | None:
        """When it came into its state."""
        return _moment(self.moved_at)


@dataclass(frozen=True)
class Lease:
    """An instance that may exist because of us, until Incus says that it does not.

    `made`: its create is known to have been answered. `kept`: it stays for debugging.
    """

    instance: str
    job: str
    run: str
    opened_at: datetime
    deadline: datetime
    kept: bool
    made: bool


COLUMNS = (
    "jobs.id, run, name, ended, state, verdict, attempt, submitted_at, begun_at, moved_at,"
    " workspace, snapshot, revision, dirty, message"
)


def job_row(values: tuple[Any, ...]) -> JobRow:
    """The row of the values of `COLUMNS`."""
    id, run, name, ended, state, verdict, attempt, submitted, begun, moved = values[:10]
    workspace, snapshot, commit, dirty, message = values[10:]
    return JobRow(
        id,
        run,
        name,
        ended == 1,
        _STATES.get(state, State.NEW),  # nothing is known of a job whose state was damaged
        _VERDICTS.get(verdict),
        attempt,
        submitted,
        begun,
        moved,
        workspace,
        snapshot,
        commit,
        dirty == 1,
        message,
    )


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def first_values(entry: ev.Submitted | ev.Rejected, number: int | None) -> tuple[Any, ...]:
    """A new row, for `INSERT_JOB`; `number` is its first entry's."""
    key: str | None = None
    tree: tuple[Any, ...] = (None, None, None)
    if isinstance(entry, ev.Submitted):
        key = entry.key or None
        tree = (entry.snapshot.hash, entry.snapshot.commit, entry.snapshot.dirty)
    attempt = int(isinstance(entry, ev.Submitted))
    state, verdict, ended, at, message = _moved(entry)
    return (
        *(entry.job, entry.run, entry.name, number, key, state, verdict, ended, attempt),
        *(at, at, entry.workspace, *tree, message),
    )


INSERT_JOB = (
    "INSERT INTO jobs (id, run, name, first_entry, key, state, verdict, ended, attempt,"
    " submitted_at, moved_at, workspace, snapshot, revision, dirty, message)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def next_values(entry: ev.Event) -> tuple[Any, ...]:
    """What an event changes in the row of its job, for `MOVE_JOB`."""
    moved = _moved(entry)
    begun = moved[3] if isinstance(entry, ev.ArtifactsReset) else None
    return (*moved, isinstance(entry, ev.Retried | ev.Restarted), begun, entry.job)


MOVE_JOB = (
    "UPDATE jobs SET state = ?, verdict = ?, ended = ?, moved_at = ?, message = ?,"
    " attempt = attempt + ?, begun_at = coalesce(begun_at, ?) WHERE id = ?"
)


def _moved(entry: ev.Event) -> tuple[State, Verdict | None, bool, str, str]:
    """State, verdict, whether it has ended, when, and why it did not pass."""
    state, at = _DESTINATIONS[type(entry)], entry.at.isoformat()
    if state not in TERMINAL:
        return state, None, False, at, ""
    return state, verdict_of(entry), True, at, _message(entry)[:MAX_MESSAGE]


def _message(entry: ev.Event) -> str:
    match entry:
        case ev.ResultCollected() if entry.outcome is not Outcome.PASSED:
            return entry.message
        case ev.Rejected() | ev.Failed() | ev.Cancelled():
            return entry.failure.message
    return ""
