"""Rows for jobs and leases, which can be read without their events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from states import events as ev
from states.job import verdict_of, why
from states.lifecycle import TABLE, TERMINAL, State
from states.outcome import Outcome, Verdict

MAX_MESSAGE = 1000
LONG_AGO = datetime.fromtimestamp(0, UTC)  # for a time missing in a damaged row
# An event always leads to the same state.
_LEADS_TO = {trigger: state for trigger, _, state in TABLE}
_DESTINATIONS = {kind: _LEADS_TO[ev.tag(kind)] for kind in ev.EVENT_TYPES}
_AGAIN = (ev.Retried, ev.Restarted, ev.Lost)  # they begin another attempt
_STATES = {state.value: state for state in State}
_VERDICTS = {verdict.value: verdict for verdict in Verdict}


class JobRow(msgspec.Struct, frozen=True, gc=False):
    """A job in a list, from columns that every event keeps up to date.

    `message` says why the job did not pass. `host` is the name of its host, "" for the local one.
    `identity` is the hash of what its command ran with, None if there was no result. `snapshot`,
    `commit` and `dirty` describe its tree, `subject` and `branch` the commit. `number` is that of
    its run. `because` is the job that did not pass, if this one was skipped or cancelled for that.
    Times are ISO 8601, None if there is none, or if a damaged row lacks it.
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
    host: str
    identity: str | None
    number: int = 0
    subject: str = ""
    branch: str = ""
    because: str = ""

    @property
    def submitted(self) -> datetime | None:
        """When it was submitted."""
        return _moment(self.submitted_at)

    @property
    def begun(self) -> datetime | None:
        """When it first left the queue."""
        return _moment(self.begun_at)

    @property
    def moved(self) -> datetime | None:
        """When it entered its state."""
        return _moment(self.moved_at)


class Lease(msgspec.Struct, frozen=True):
    """An instance of ours that may exist, until Incus says that it does not.

    `made`: the create call was answered. `kept`: it is kept for debugging. `host` is the name of
    its host, "" for the local one; `member` the member of the host's cluster, "" if it is none. A
    warm guest has no `job` yet, and as `run` the session of its process. `attempt` is that of the
    job which claimed it; 0 for a guest that was made for its attempt.
    """

    instance: str
    job: str
    run: str
    opened_at: datetime
    deadline: datetime
    kept: bool
    made: bool
    host: str = ""
    member: str = ""
    attempt: int = 0


COLUMNS = (
    "jobs.id, run, name, ended, state, verdict, attempt, submitted_at, begun_at, moved_at,"
    " workspace, snapshot, revision, dirty, message, jobs.host, identity, number, subject, branch,"
    " because"
)


def job_row(values: tuple[Any, ...]) -> JobRow:
    """A row from the values of `COLUMNS`."""
    id, run, name, ended, state, verdict, attempt, submitted, begun, moved = values[:10]
    workspace, snapshot, commit, dirty, message, host, identity = values[10:17]
    return JobRow(
        id,
        run,
        name,
        ended == 1,
        _STATES.get(state, State.NEW),  # the state of this row is damaged
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
        host,
        identity,
        *values[17:],
    )


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def first_values(
    entry: ev.Submitted | ev.Rejected, first_entry: int | None, number: int
) -> tuple[Any, ...]:
    """The values of a new row, for `INSERT_JOB`; `number` is that of its run."""
    key: str | None = None
    tree: tuple[Any, ...] = (None, None, None, "", "")
    if isinstance(entry, ev.Submitted):
        key = entry.key or None
        seen = entry.snapshot
        tree = (seen.hash, seen.commit, seen.dirty, seen.subject, seen.branch)
    attempt = int(isinstance(entry, ev.Submitted))
    host = entry.host if isinstance(entry, ev.Submitted) else ""
    state, verdict, ended, at, message = _moved(entry)
    return (
        *(entry.job, entry.run, entry.name, first_entry, key, state, verdict, ended, attempt),
        *(at, at, entry.workspace, *tree, message, host, number),
    )


INSERT_JOB = (
    "INSERT INTO jobs (id, run, name, first_entry, key, state, verdict, ended, attempt,"
    " submitted_at, moved_at, workspace, snapshot, revision, dirty, subject, branch, message, host,"
    " number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def next_values(entry: ev.Event) -> tuple[Any, ...]:
    """The values that an event changes in its job's row, for `MOVE_JOB`."""
    moved = _moved(entry)
    begun = moved[3] if isinstance(entry, ev.ArtifactsReset) else None
    host = entry.host if isinstance(entry, ev.ArtifactsReset) else None
    because = entry.because if isinstance(entry, ev.Skipped | ev.CancelRequested) else None
    return (*moved, type(entry) in _AGAIN, begun, host, because, entry.job)


MOVE_JOB = (
    "UPDATE jobs SET state = ?, verdict = ?, ended = ?, moved_at = ?, message = ?,"
    " attempt = attempt + ?, begun_at = coalesce(begun_at, ?), host = coalesce(?, host),"
    " because = coalesce(?, because) WHERE id = ?"
)


def _moved(entry: ev.Event) -> tuple[State, Verdict | None, bool, str, str]:
    """State, verdict, whether it has ended, when it moved, and why it did not pass."""
    # As it stands in the entry; `isoformat` takes ten times as long.
    state, at = _DESTINATIONS[type(entry)], msgspec.to_builtins(entry.at)
    if state not in TERMINAL:
        return state, None, False, at, ""
    return state, verdict_of(entry), True, at, _message(entry)[:MAX_MESSAGE]


def _message(entry: ev.Event) -> str:
    match entry:
        case ev.ResultCollected() if entry.outcome is not Outcome.PASSED:
            return why(entry)
        case ev.Rejected() | ev.Failed() | ev.Cancelled() | ev.Skipped():
            return entry.failure.message
    return ""
