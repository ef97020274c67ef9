"""What the journal knows of jobs and leases without reading their events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from states import events as ev
from states.job import verdict_of
from states.lifecycle import TABLE, TERMINAL, State
from states.outcome import Outcome, Verdict

MAX_MESSAGE = 1000
LONG_AGO = datetime.fromtimestamp(0, UTC)  # for a time that a damaged row does not tell
# An event leads to one state, wherever it comes from.
_DESTINATIONS = {trigger: state for trigger, _, state in TABLE}
_STATES = {state.value: state for state in State}
_VERDICTS = {verdict.value: verdict for verdict in Verdict}


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a list, from columns that every event keeps up to date.

    `begun` is when the job first left the queue, `moved` when it came into its state; a time is
    None where there is none, or where a damaged row does not tell. `message` says why the job did
    not pass. `snapshot`, `commit` and `dirty` are the tree that it sees.
    """

    id: str
    run: str
    name: str
    ended: bool
    state: State
    verdict: Verdict | None
    attempt: int
    submitted: datetime | None
    begun: datetime | None
    moved: datetime | None
    workspace: str
    snapshot: str | None
    commit: str | None
    dirty: bool
    message: str


@dataclass(frozen=True)
class Lease:
    """An instance that may exist because of us, until Incus says that it does not."""

    instance: str
    job: str
    run: str
    opened_at: datetime
    deadline: datetime
    kept: bool


COLUMNS = (
    "jobs.id, run, name, ended, state, verdict, attempt, submitted_at, begun_at, moved_at,"
    " workspace, snapshot, revision, dirty, message"
)
_TIMES = slice(7, 10)


def job_row(values: tuple[Any, ...]) -> JobRow:
    """The row of the values of `COLUMNS`."""
    id, run, name, ended, state, verdict, attempt = values[:7]
    workspace, snapshot, commit, dirty, message = values[10:]
    submitted, begun, moved = map(_moment, values[_TIMES])
    return JobRow(
        id=id,
        run=run,
        name=name,
        ended=bool(ended),
        # Nothing is known of a job whose state was damaged.
        state=_STATES.get(state, State.NEW),
        verdict=_VERDICTS.get(verdict),
        attempt=attempt,
        submitted=submitted,
        begun=begun,
        moved=moved,
        workspace=workspace,
        snapshot=snapshot,
        commit=commit,
        dirty=bool(dirty),
        message=message,
    )


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def first_values(entry: ev.Submitted | ev.Rejected) -> dict[str, Any]:
    """The columns of a job that has just come."""
    at = entry.at.isoformat()
    values = {
        "id": entry.job,
        "run": entry.run,
        "name": entry.name,
        "key": None,
        "attempt": 0,
        "submitted_at": at,
        "workspace": entry.workspace,
        "snapshot": None,
        "revision": None,
        "dirty": None,
        **_moved(entry),
    }
    if isinstance(entry, ev.Submitted):
        seen = entry.snapshot
        values |= {"key": entry.key or None, "attempt": 1}
        values |= {"snapshot": seen.hash, "revision": seen.commit, "dirty": seen.dirty}
    return values


def next_values(entry: ev.Event) -> dict[str, Any]:
    """What an event changes in the columns of its job; `anew` is 1 when an attempt begins."""
    begins = isinstance(entry, ev.ArtifactsReset)
    return {
        "job": entry.job,
        "begun_at": entry.at.isoformat() if begins else None,
        "anew": isinstance(entry, ev.Retried | ev.Restarted),
        **_moved(entry),
    }


def _moved(entry: ev.Event) -> dict[str, Any]:
    state = _DESTINATIONS[ev.tag(type(entry))]
    return {
        "state": state,
        "verdict": verdict_of(entry),
        "ended": state in TERMINAL,
        "moved_at": entry.at.isoformat(),
        "message": _message(entry)[:MAX_MESSAGE],
    }


def _message(entry: ev.Event) -> str:
    match entry:
        case ev.ResultCollected() if entry.outcome is not Outcome.PASSED:
            return entry.message
        case ev.Rejected() | ev.Failed() | ev.Cancelled():
            return entry.failure.message
    return ""
