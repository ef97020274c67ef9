"""What happened, as frozen data.

An `Event` moves a job; its tag is the name of a trigger in the lifecycle's table. A `Note` records
something else about the job (an incus call, a lease) and moves nothing. Both carry the wall time
`at`, for display, and `monotonic` in seconds, for measuring.

Each class has a version: the only value that its field `v` may have, which is required from version
2 on. So the decoder itself refuses entries of other versions. A new field with a default needs no
new version. When the meaning of a class changes, raise its version and add a step to
`states.upcast` that converts old entries.
"""

# Annotations are not text here: msgspec would compile each of them, at every start.
import enum
from datetime import datetime
from typing import Annotated

import msgspec

from states.outcome import Failure, Outcome
from states.spec import JobSpec
from states.testcases import CaseReport
from states.usage import Usage

First = Annotated[int, msgspec.Meta(ge=1, le=1)] | msgspec.UnsetType  # not written
Second = Annotated[int, msgspec.Meta(ge=2, le=2)]


class SnapshotRef(msgspec.Struct, frozen=True, kw_only=True):
    """The tree that a job saw: its content hash, and the git commit that it was made from.

    `subject` is the first line of the commit's message, `branch` what was checked out; "" if it is
    not known. A part of a snapshot, for a job with `sources`, has no commit; `whole` is that
    snapshot's hash.
    """

    hash: str
    commit: str | None = None
    dirty: bool | None = None
    whole: str = ""
    subject: str = ""
    branch: str = ""


class ImageRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which image an instance was made from.

    `minor` is the minor version of the guest contract that the image claims to keep.
    """

    alias: str
    fingerprint: str
    minor: int = 0


class OutputRef(msgspec.Struct, frozen=True, kw_only=True):
    """An output of a job: a tree, whose directory is named by the key, or an image.

    `key` is a hash over all that pikaci gave to the job that made it, `job`, at the time `at`.
    `fingerprint` is that of an image, "" for a tree. `unkeyed` are keys of that job's spec by which
    it could use what no key contains: `egress`, `network`, directories of the host.
    """

    key: str
    job: str
    at: datetime
    fingerprint: str = ""
    unkeyed: tuple[str, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """One step of one job; `seq` numbers a job's events from 1, without gaps.

    `boot` identifies the host's boot from which `monotonic` counts. It is set only when it differs
    from that of the previous event.
    """

    job: str
    seq: int
    at: datetime
    monotonic: float
    boot: str | msgspec.UnsetType = msgspec.UNSET
    v: First = msgspec.UNSET


class Submitted(Event, frozen=True, tag="submitted"):
    """The spec is valid and stored. `contract` is the version of the guest contract.

    `key` is the submitter's idempotency key, "" for none: submitting again with the same key does
    not create a second job. `asked` is then a hash of the whole request; journals of older versions
    do not have it. `needs` are the jobs that this one waits for: their ids, by name. `fresh` says
    that its output is made anew, even if there is one; `fail_fast` that the job does not go on
    when another job of the run does not pass. `host` is the name of the host that the job is to run
    on, "" for the local one. Where there is a choice, it is "", and `hosts` are the names of those
    that can take the job, "local" for the local one: the first with a free slot does. `held` says
    that a service cancels the run when nobody is connected for it.
    """

    run: str
    name: str
    spec: JobSpec
    workspace: str
    snapshot: SnapshotRef
    contract: int
    key: str = ""
    asked: str = ""
    needs: dict[str, str] = {}
    fresh: bool = False
    fail_fast: bool = False
    host: str = ""
    hosts: tuple[str, ...] = ()
    held: bool = False


class Rejected(Event, frozen=True, tag="rejected"):
    """The spec was refused before anything was touched."""

    run: str
    name: str
    spec: JobSpec
    workspace: str
    failure: Failure


class Reused(Event, frozen=True, tag="reused"):
    """The output that the job would leave is there already: nothing was run."""

    output: OutputRef


class Skipped(Event, frozen=True, tag="skipped"):
    """The job `because` did not pass: this one needs it, or the run stops at the first such job."""

    failure: Failure
    because: str


class ArtifactsReset(Event, frozen=True, tag="artifacts_reset"):
    """This attempt's directory on this machine exists and is empty.

    `inputs` are the outputs that the attempt uses, by the names of their jobs. `host` is the name
    of the host that the attempt runs on, "" for the local one.
    """

    artifacts: str
    inputs: dict[str, OutputRef] = {}
    host: str = ""


class DevicesConfigured(Event, frozen=True, tag="devices_configured"):
    """The instance exists, with all its devices, and was started.

    `member` is the member of the cluster that has it, "" where Incus is no cluster. `warm_ms` says
    that it was a warm guest, and how long its create and its boot took before; None for one that
    was made for the attempt.
    """

    instance: str
    image: ImageRef
    member: str = ""
    warm_ms: float | None = None


class InstanceReady(Event, frozen=True, tag="instance_ready"):
    """The runner is in the guest, and every planned mount is mounted there."""


class Running(Event, frozen=True, tag="running"):
    """The runner has started the command."""


class Publishing(Event, frozen=True, tag="publishing"):
    """The command passed, and result and log are on the host. The job's output is not, yet."""

    warnings: tuple[str, ...] = ()
    tests: CaseReport | None = None
    usage: Usage | None = None


class ResultCollected(Event, frozen=True, tag="result_collected"):
    """The result and the log are on the host. `exit_code` is the command's own.

    `output` is what the job left for others, if it has an `output` and passed. `tests` is what its
    test reports say, None if it left none. `reason` is the line of its log that says why the
    command failed, "" where that is not clear, and for a test report with failures. `usage` is what
    the job used, None if its guest does not say.
    """

    outcome: Outcome
    exit_code: int
    message: str
    hint: str = ""
    warnings: tuple[str, ...] = ()
    output: OutputRef | None = None
    tests: CaseReport | None = None
    reason: str = ""
    usage: Usage | None = None


class Retried(Event, frozen=True, tag="retried"):
    """An infrastructure fault ended this attempt; another begins after `delay_secs`."""

    failure: Failure
    delay_secs: float


class Restarted(Event, frozen=True, tag="restarted"):
    """The command cannot begin in the attempt's instance. Another attempt begins.

    `reason` says why; "" means that the process that drove the job died, and the instance is
    unfinished, or its lease is nearly over.
    """

    reason: str = ""


class Lost(Event, frozen=True, tag="lost"):
    """The attempt's guest is lost with its cluster member `member`. Another attempt begins.

    Its command may have run, or may still run: nothing of it is used any more.
    """

    failure: Failure
    member: str


class CancelRequested(Event, frozen=True, tag="cancel_requested"):
    """The job is to be cancelled; `reason` says who or what asked for it.

    `because` is the job that did not pass, if the run stops at the first such job.
    """

    reason: str
    because: str = ""


class Cancelled(Event, frozen=True, tag="cancelled"):
    """The job's command is dead in its guest, or never started.

    `usage` is what it used until then, None if it never started, or its guest does not say.
    """

    failure: Failure
    usage: Usage | None = None


class Failed(Event, frozen=True, tag="failed"):
    """An infrastructure fault that retries did not fix, or a spec that is no longer accepted.

    The latter is of kind `config`: another version of pikaci accepted the job, which has not begun.
    """

    failure: Failure


AnyEvent = (
    Submitted
    | Rejected
    | Reused
    | Skipped
    | ArtifactsReset
    | DevicesConfigured
    | InstanceReady
    | Running
    | Publishing
    | ResultCollected
    | Retried
    | Restarted
    | Lost
    | CancelRequested
    | Cancelled
    | Failed
)


class Note(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Something worth knowing in a trace that does not move the job."""

    job: str
    at: datetime
    monotonic: float
    v: First = msgspec.UNSET


class Called(Note, frozen=True, tag="called"):
    """One incus command has ended. `argv` can be pasted into a shell, and never contains secrets.

    `effect` says what the command was for (`create`, `collect`). Version 1 did not have it.
    """

    argv: tuple[str, ...]
    duration_ms: float
    exit_code: int | None
    error: str = ""
    effect: str = ""
    v: Second


class LeaseOpened(Note, frozen=True, tag="lease_opened"):
    """Intent: an instance of this name is about to be created, on the host of this name.

    In a cluster it is created on `member`. A warm guest has no `job`, and is of this `session`: as
    long as its process lives, nobody else deletes it. Such a note is in no trace.
    """

    instance: str
    deadline: datetime
    host: str = ""
    member: str = ""
    session: str = ""


class LeaseClaimed(Note, frozen=True, tag="lease_claimed"):
    """A warm guest, made before, is that of the job's `attempt` from now on, until `deadline`."""

    instance: str
    attempt: int
    deadline: datetime
    host: str = ""
    member: str = ""


class LeaseKept(Note, frozen=True, tag="lease_kept"):
    """The instance is kept for debugging until `deadline`."""

    instance: str
    deadline: datetime


class LeaseEnded(Note, frozen=True, tag="lease_ended"):
    """Incus confirmed that no instance has this name."""

    instance: str


class Warned(Note, frozen=True, tag="warned"):
    """Something went wrong that does not change the job's outcome."""

    message: str


class WaitFor(enum.StrEnum):
    """What a job waits for that is not in its own hands."""

    PLACE = "place"  # a slot
    IMAGE = "image"  # the image look-up
    INPUT = "input"  # the end of a job that it needs
    OUTPUT = "output"  # another job that makes the same output
    SECRET = "secret"  # a secret that this process cannot read yet  # noqa: S105


class Waited(Note, frozen=True, tag="waited"):
    """The job has waited, until now, for something outside its control.

    `after` is the job that freed its slot, "" when that is not known.
    """

    what: WaitFor
    duration_ms: float
    after: str = ""


class OutputMissing(Note, frozen=True, tag="output_missing"):
    """No output has this key, so the job runs. `reason` says what is different from the last."""

    key: str
    reason: str = ""


class Connected(Note, frozen=True, tag="connected"):
    """A connection of the job by its `egress` has ended, or came to nothing; or `count` of them.

    `host` is as the job asked for it, "" for what was no request, "*" for many hosts. `address` is
    the one connected to. `proxy` is the host's own proxy in between; then only the name was
    checked. `refused`: by the rules; `reason` says why it came to nothing, or broke. Bytes are
    counted as the job sent and received them.
    """

    host: str
    port: int
    address: str = ""
    proxy: str = ""
    refused: bool = False
    reason: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    duration_ms: float = 0.0
    count: int = 1


class EgressGap(Note, frozen=True, tag="egress_gap"):
    """The job had no way out for a time, as the process that provides it was gone.

    `cut` connections broke when it went, `late` ones gave up or were told after `daemon_secs`. All
    are sums over the attempt; `known` is False if the guest could not say.
    """

    duration_ms: float
    cut: int
    late: int
    known: bool = True


class UnknownNote(Note, frozen=True, tag="unknown"):
    """A note that only a newer pikaci can read: `kind` is its type, `body` is all of its JSON.

    pikaci never creates one; it copies `body` unchanged.
    """

    kind: str
    body: bytes


WrittenNote = (
    Called
    | LeaseOpened
    | LeaseClaimed
    | LeaseKept
    | LeaseEnded
    | Warned
    | Waited
    | Connected
    | EgressGap
    | OutputMissing
)
AnyNote = WrittenNote | UnknownNote
Written = AnyEvent | WrittenNote
Entry = AnyEvent | AnyNote
EVENT_TYPES: tuple[type[Event], ...] = AnyEvent.__args__
WRITTEN_TYPES: tuple[type[Event | Note], ...] = Written.__args__


def tag(entry_type: type[Event | Note]) -> str:
    """The name of an entry type in the journal and in the lifecycle's table."""
    return str(entry_type.__struct_config__.tag)


def kind_of(entry: Event | Note) -> str:
    """The name of an entry's type in the journal, also for a note of a newer pikaci."""
    return entry.kind if isinstance(entry, UnknownNote) else tag(type(entry))
