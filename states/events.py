"""What happened, as frozen data.

An `Event` moves a job; its tag is the name of a trigger in the lifecycle's table. A `Note`
tells of something beside the job's life (a call of incus, a lease) and moves nothing. Both
carry the wall time `at`, to show, and `monotonic` in seconds, to measure with.

Each class has a version, 1 unless it has a field `v` whose default is another. What a class gets
beside its old fields needs no new version: a default is enough. What means something else than it
did gets one, and a step in `states.upcast` that brings old entries up.
"""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from states.outcome import Failure, Outcome
from states.spec import JobSpec


class SnapshotRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which tree a job saw: the content hash, and the git commit that it was made from."""

    hash: str
    commit: str | None = None
    dirty: bool | None = None


class ImageRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which image an instance was made from."""

    alias: str
    fingerprint: str


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """One step of one job; `seq` counts a job's events from 1 without a gap.

    `boot` names the boot of the host that `monotonic` counts from, where it is another than that
    of the event before.
    """

    job: str
    seq: int
    at: datetime
    monotonic: float
    boot: str | msgspec.UnsetType = msgspec.UNSET


class Submitted(Event, frozen=True, tag="submitted"):
    """The spec is valid and stored. `contract` is the version of the guest contract.

    `key` is what the submitter names the submission by, "" for none: what is submitted under
    one key is submitted once. `asked` is then a hash over all that was asked for; journals of
    older versions have none.
    """

    run: str
    name: str
    spec: JobSpec
    workspace: str
    snapshot: SnapshotRef
    contract: int
    key: str = ""
    asked: str = ""


class Rejected(Event, frozen=True, tag="rejected"):
    """The spec was refused before anything was touched."""

    run: str
    name: str
    spec: JobSpec
    workspace: str
    failure: Failure


class ArtifactsReset(Event, frozen=True, tag="artifacts_reset"):
    """This attempt's directory on the host exists and is empty."""

    artifacts: str


class DevicesConfigured(Event, frozen=True, tag="devices_configured"):
    """The instance exists, stopped, with all its devices."""

    instance: str
    image: ImageRef


class InstanceReady(Event, frozen=True, tag="instance_ready"):
    """The runner is in the guest, and every planned mount is mounted there."""


class Running(Event, frozen=True, tag="running"):
    """The runner has started the command."""


class ResultCollected(Event, frozen=True, tag="result_collected"):
    """The result and the log lie on the host. `exit_code` is the command's own."""

    outcome: Outcome
    exit_code: int
    message: str
    hint: str = ""
    warnings: tuple[str, ...] = ()


class Retried(Event, frozen=True, tag="retried"):
    """An infrastructure fault ended this attempt; another begins after `delay_secs`."""

    failure: Failure
    delay_secs: float


class Restarted(Event, frozen=True, tag="restarted"):
    """The process that drove the job died, and left half an instance or one whose lease is over.

    Another attempt begins.
    """


class CancelRequested(Event, frozen=True, tag="cancel_requested"):
    """Somebody wants the job to end; `reason` says who or what."""

    reason: str


class Cancelled(Event, frozen=True, tag="cancelled"):
    """The job is dead in its guest, or never started."""

    failure: Failure


class Failed(Event, frozen=True, tag="failed"):
    """An infrastructure fault that retries did not cure."""

    failure: Failure


AnyEvent = (
    Submitted
    | Rejected
    | ArtifactsReset
    | DevicesConfigured
    | InstanceReady
    | Running
    | ResultCollected
    | Retried
    | Restarted
    | CancelRequested
    | Cancelled
    | Failed
)


class Note(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Something beside the job's life that a reader of its trace wants to know."""

    job: str
    at: datetime
    monotonic: float


class Called(Note, frozen=True, tag="called"):
    """One incus command has ended; `argv` as one can paste it, secrets never in it.

    `effect` is what it was for (`create`, `collect`). Version 1 did not have it.
    """

    argv: tuple[str, ...]
    duration_ms: float
    exit_code: int | None
    error: str = ""
    effect: str = ""
    v: int = 2


class LeaseOpened(Note, frozen=True, tag="lease_opened"):
    """Intent: an instance of this name is about to be created."""

    instance: str
    deadline: datetime


class LeaseKept(Note, frozen=True, tag="lease_kept"):
    """The instance stays for debugging, until `deadline`."""

    instance: str
    deadline: datetime


class LeaseEnded(Note, frozen=True, tag="lease_ended"):
    """Incus said that there is no instance of this name."""

    instance: str


class Warned(Note, frozen=True, tag="warned"):
    """Something went wrong that does not change the job's outcome."""

    message: str


class WaitFor(enum.StrEnum):
    """What a job waits for that others have, or have to bring."""

    PLACE = "place"  # among the jobs that may run at once
    IMAGE = "image"  # to be looked up
    SECRET = "secret"  # to be where this process can read it  # noqa: S105


class Waited(Note, frozen=True, tag="waited"):
    """The job has waited, until now, for something that is not its own doing.

    `after` is the job that made way for it, "" when that is not known.
    """

    what: WaitFor
    duration_ms: float
    after: str = ""


class UnknownNote(Note, frozen=True, tag="unknown"):
    """A note that only a newer pikaci can read: `kind` is its type, `body` all of its JSON.

    It is only ever read, and written again as it was.
    """

    kind: str
    body: bytes


WrittenNote = Called | LeaseOpened | LeaseKept | LeaseEnded | Warned | Waited
AnyNote = WrittenNote | UnknownNote
Written = AnyEvent | WrittenNote
Entry = AnyEvent | AnyNote
EVENT_TYPES: tuple[type[Event], ...] = AnyEvent.__args__
WRITTEN_TYPES: tuple[type[Event | Note], ...] = Written.__args__


def tag(entry_type: type[Event | Note]) -> str:
    """The name under which a type of entry stands in a journal and in the table."""
    return str(entry_type.__struct_config__.tag)


def kind_of(entry: Event | Note) -> str:
    """The name under which an entry stands in a journal, whoever wrote it."""
    return entry.kind if isinstance(entry, UnknownNote) else tag(type(entry))
