"""What goes over HTTP, as JSON. The OpenAPI document is made from these types."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from orchestrator.journal import JobRow
from orchestrator.report import JobDocument as JobDocument
from orchestrator.report import job_document as job_document
from states import events as ev
from states.events import SnapshotRef
from states.job import verdict_of
from states.lifecycle import TABLE, State
from states.outcome import Verdict
from states.spec import NAME_PATTERN, JobSpec

MAX_JOBS = 1000
# A stream is never silent for longer.
KEEP_ALIVE_SECS = 15.0
_LEADS_TO = {trigger: state for trigger, _, state in TABLE}

_Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
_Path = Annotated[str, msgspec.Meta(pattern="^/", max_length=4096)]
_Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class SubmitRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs of one workspace, a directory of the service's host, to be run on one snapshot of it.

    `include` are globs of git-ignored files that the snapshot takes along. A `snapshot` of an
    earlier run is used as it is. Host paths in specs are absolute.
    """

    workspace: _Path
    jobs: Annotated[dict[_Name, JobSpec], msgspec.Meta(min_length=1, max_length=MAX_JOBS)]
    include: tuple[_Glob, ...] = ()
    snapshot: SnapshotRef | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`now`: without a grace period. `reason` is shown with the job."""

    now: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=200)] = "asked for over HTTP"


class RunDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A run: its jobs in their order.

    `warnings` say what one may not expect of the files in its snapshot, one line each. They are in
    the answer to the request that published it, and in no other.
    """

    id: str
    jobs: tuple[JobDocument, ...]
    warnings: tuple[str, ...] = ()


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, the newest first. `next` is the `before` of the next page, None on the last."""

    jobs: tuple[JobDocument, ...]
    next: int | None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a log, from 1, and the byte where it begins, from 0."""

    line: int
    byte: int


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a job left: its path below `/artifacts`, its bytes, and their SHA-256 in hex."""

    path: str
    size: int
    sha256: str


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's current attempt left."""

    artifacts: tuple[Artifact, ...]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one job: `type` is that of its event, `state` where it led."""

    job: str
    run: str
    name: str
    type: str
    at: datetime
    state: State
    verdict: Verdict | None


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong (RFC 9457): `title` the line, `detail` more of it, `resolution` what next."""

    status: int
    title: str
    detail: str = ""
    resolution: str = ""
    type: str = "about:blank"


def move(row: JobRow, event: ev.Event) -> Move:
    """What an event did, in a few words: the job's own events have all of it."""
    return Move(
        job=row.id,
        run=row.run,
        name=row.name,
        type=ev.tag(type(event)),
        at=event.at,
        state=_LEADS_TO[ev.tag(type(event))],
        verdict=verdict_of(event),
    )
