"""The JSON documents of the API. The OpenAPI document is made from these types."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from orchestrator.journal import JobRow
from orchestrator.outlook import FlakeDocument
from orchestrator.report import JobDocument as JobDocument
from orchestrator.report import job_document as job_document
from orchestrator.usage_samples import Sample
from states import events as ev
from states.events import SnapshotRef
from states.job import verdict_of
from states.lifecycle import TABLE, State
from states.outcome import Verdict
from states.spec import HostName, JobName, JobSpec
from states.testcases import Case, CaseReport
from states.usage import Usage

MAX_JOBS = 1000
MAX_HOSTS = 100
# A stream sends something at least this often.
KEEP_ALIVE_SECS = 15.0
_LEADS_TO = {trigger: state for trigger, _, state in TABLE}

_Path = Annotated[str, msgspec.Meta(pattern="^/", max_length=4096)]
_Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class SubmitRun(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Jobs of one workspace, a directory on the service's host. All of them see one snapshot of it.

    `include` are globs of git-ignored files that the snapshot also gets, `exclude` of files that it
    leaves out. With `git` it has a `.git` made by pikaci, at the workspace's commit. The outputs of
    the jobs `fresh` are made anew. `fail_fast` stops the run at the first job that does not pass.
    `hosts` are names of hosts in the service's settings, for jobs that name none.
    With the `snapshot` of an earlier run, no new one is made. Host paths in specs must be absolute.
    """

    workspace: _Path
    jobs: Annotated[dict[JobName, JobSpec], msgspec.Meta(min_length=1, max_length=MAX_JOBS)]
    include: tuple[_Glob, ...] = ()
    exclude: tuple[_Glob, ...] = ()
    git: bool = False
    fresh: tuple[JobName, ...] = ()
    fail_fast: bool = False
    hosts: Annotated[tuple[HostName, ...], msgspec.Meta(max_length=MAX_HOSTS)] = ()
    snapshot: SnapshotRef | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`now`: skip the grace period. `reason` is shown with the job."""

    now: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=200)] = "asked for over HTTP"


class RunDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A run, with its jobs in order. `number` is its short name, counted from 1.

    `warnings` are lines about surprises in its snapshot. Only the answer to the request that
    published the snapshot has them.
    """

    id: str
    number: int
    jobs: tuple[JobDocument, ...]
    warnings: tuple[str, ...] = ()


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first. `next` is the `before` of the next page; null on the last page."""

    jobs: tuple[JobDocument, ...]
    next: int | None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a log, counted from 1, and the byte at which it begins, counted from 0."""

    line: int
    byte: int


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """When the host received a log: from a byte on, milliseconds since 1970, null if unknown.

    `next` is the `after` of the next page; null on the last page.
    """

    times: tuple[tuple[int, int | None], ...]
    next: int | None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact: its path below `/artifacts`, its size in bytes, and its SHA-256 in hex."""

    path: str
    size: int
    sha256: str


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """The artifacts of a job's current attempt."""

    artifacts: tuple[Artifact, ...]


class Tests(msgspec.Struct, frozen=True, kw_only=True):
    """The tests of a job, in the order of its reports.

    `report` is a summary of all, null if the job left no report. `next` is the `after` of the next
    page; null on the last page.
    """

    report: CaseReport | None
    tests: tuple[Case, ...]
    next: int | None


class UsageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a job used, null if its guest does not say, and its samples over time, oldest first."""

    usage: Usage | None
    samples: tuple[Sample, ...]


class Flakes(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that passed and failed with the same inputs, newest first."""

    flakes: tuple[FlakeDocument, ...]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A state change of a job: `type` is the type of the event, `state` the new state."""

    job: str
    run: str
    name: str
    type: str
    at: datetime
    state: State
    verdict: Verdict | None


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457): `title` is one line, `detail` the evidence, `resolution` what to do."""

    status: int
    title: str
    detail: str = ""
    resolution: str = ""
    type: str = "about:blank"


def move(row: JobRow, event: ev.Event) -> Move:
    """The state change that an event made; the job's own stream has the whole event."""
    return Move(
        job=row.id,
        run=row.run,
        name=row.name,
        type=ev.tag(type(event)),
        at=event.at,
        state=_LEADS_TO[ev.tag(type(event))],
        verdict=verdict_of(event),
    )
