"""Maps the error messages of the incus command to exception types.

Every failure of the client, the transport or the daemon is exit code 1 with a message after `Error:
`. Only this file reads these messages.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import ClassVar

from states.errors import PikaciError

# A tar on a full disk complains about every file.
MAX_BRIEF, MAX_DETAILS = 300, 4000


class IncusError(PikaciError):
    """An incus command failed.

    `retryable`: the same call may succeed later. `answered`: the call is over; otherwise Incus may
    have carried it out, or may still do so. In `hint`, `{on}` is where to type an incus command,
    and `{look}` what looks at the host.
    """

    retryable: ClassVar[bool] = False
    answered: ClassVar[bool] = True
    hint: ClassVar[str] = ""
    says: ClassVar[str] = ""


class IncusMissing(IncusError):
    """This host has no incus command."""

    hint = "install the package incus-client, or run `make setup` in a checkout of pikaci"


class DaemonUnreachable(IncusError):
    """No daemon answers."""

    retryable = True
    hint = "`{look}` says what is missing"


class ClusterSilent(DaemonUnreachable):
    """A member of the cluster does not answer the others, or too few of them are left to decide.

    The call was not carried out.
    """

    hint = "`incus cluster list` shows the members"


class MemberOffline(IncusError):
    """The cluster member that has, or should have, the instance is offline, or takes no guests.

    The others work: what has not begun there can be done elsewhere.
    """

    retryable = True
    hint = "`incus cluster list` shows the members"


class MemberCut(MemberOffline):
    """The member went offline during the call, which may or may not have been carried out."""

    answered = False


class HostRefused(IncusError):
    """The host does not let us in as it is set up: another try would not help."""


class OutcomeUnknown(IncusError):
    """The connection broke: the call may or may not have been carried out."""

    retryable = True
    answered = False


class InstanceBusy(IncusError):
    """Another operation on the instance is still running."""

    retryable = True


class DeadlinePassed(IncusError):
    """The command did not finish in time, and was killed."""

    retryable = True
    answered = False


class OutputTooLong(IncusError):
    """The command printed more than it may, and was killed."""

    answered = False


class AnswerUnreadable(IncusError):
    """The daemon's answer does not have the expected form."""

    retryable = True


class InstanceNotFound(IncusError):
    """No instance has this name."""

    retryable = True


class ImageNotFound(IncusError):
    """No image has this name, or the project does not exist."""


class ImageAway(IncusError):
    """Only members of the cluster that are offline have the image."""

    hint = "`cluster.images_minimal_replica` says on how many members Incus keeps an image"


class ProjectNotFound(IncusError):
    """No project has this name."""

    hint = "`pikaci setup` creates the project"


class PoolNotFound(IncusError):
    """No storage pool has this name."""


class NameTaken(IncusError):
    """An instance, a volume or something else with this name exists already."""


class VolumeNotFound(IncusError):
    """No volume has this name."""

    retryable = True


class VolumeInUse(IncusError):
    """An instance has the volume as a device."""


class InstanceNotRunning(IncusError):
    """The guest has stopped."""

    retryable = True


class AgentAway(IncusError):
    """The VM takes no exec: its agent has not started, or is restarting."""

    retryable = True
    hint = "the image must start Incus's agent; `incus console` shows a VM while it boots"


class VirtualMachinesUnsupported(IncusError):
    """This host cannot run virtual machines."""

    hint = "docs/vm.md says what a host needs; `incus info` lists its drivers"


class InstanceRunning(IncusError):
    """The guest runs, and has to be stopped for this.

    A start that was asked for earlier may be carried out late, by a process that has died since.
    """

    retryable = True


class InstanceFrozen(IncusError):
    """The guest is frozen."""

    hint = "`incus resume`{on} unfreezes an instance"


class PoolFull(IncusError):
    """The storage pool is full."""

    says = "the storage pool is full: "
    hint = (
        "`pikaci gc` frees space that pikaci uses; `incus storage info pikaci`{on} shows the pool"
    )


class MappingUnsupported(IncusError):
    """A mounted directory is on a file system whose owners cannot be mapped, such as overlayfs."""


class GuestDiskFull(IncusError):
    """Incus could not note something on the instance's own disk, which is full.

    It says so when it has stopped the guest; the next call does the rest.
    """

    retryable = True
    says = "the guest's disk is full: "


class DaemonOutgrown(IncusError):
    """The daemon cannot start a process: its address space is larger than the host's memory.

    Incus 6.0.4 never gives back the 8 MiB of some threads: after some thousand guests it has as
    much as the kernel lets a process copy, although it uses little of it.
    """

    hint = (
        "restart the Incus daemon there: its address space (VmSize in /proc/PID/status) has"
        " outgrown the host's memory; guests and their jobs keep running"
    )


class LeftByEarlierDaemon(IncusError):
    """The disk file or directory for a new storage pool exists already, but belongs to no pool."""

    hint = "a removed Incus left it behind; delete the file or directory, and try again"


class NotPermitted(IncusError):
    """The user may not do this."""

    hint = "be root, or a member of the group incus-admin (which is as good as root)"


class ProjectForbidden(NotPermitted):
    """Our certificate is for other projects of the host, or the project does not exist."""

    hint = (
        "there, `incus config trust list` shows certificates; `incus config trust edit` shows, and"
        " changes, the projects of one"
    )


class RestrictedProject(IncusError):
    """The project is restricted, and forbids something that the instance has."""

    hint = "docs/hosts.md says what a restricted project must allow"


class NotTrusted(NotPermitted):
    """The host does not trust our certificate."""

    hint = (
        "make a token there (`incus config trust add NAME --restricted --projects PROJECT`),"
        " and give it to `pikaci host add`"
    )


class TokenRefused(NotTrusted):
    """The host does not know the token: it was used already, has expired, or is of another host."""

    hint = "a token can be used only once; make another there: `incus config trust add NAME`"


class CertificateChanged(IncusError):
    """The host has another certificate than when it was added: it was made anew, or is another."""

    hint = (
        "if it was renewed (`incus info` there shows its fingerprint), remove the host with"
        " `pikaci host remove`, and add it again"
    )


class RemoteMissing(IncusError):
    """The configuration of the incus command has no remote with this name."""

    hint = "`pikaci host add` adds it"


class AlreadyDone(IncusError):
    """The instance is already in the requested state."""


_BROKE = ("read tcp", "write tcp", "read vsock", "write vsock")
_TEXTS: tuple[tuple[str, type[IncusError]], ...] = (
    # First: some of these messages also contain "connection refused".
    ("failed to verify certificate", CertificateChanged),
    # A connection that was there and broke, whatever the reason ("no route to host" too): over TLS,
    # or of the daemon to a VM's agent.
    *((f": {words}", OutcomeUnknown) for words in _BROKE),
    ("cluster member is offline", MemberOffline),
    ("The cluster member hosting", MemberOffline),
    ("Cluster member is evacuated", MemberOffline),
    # The member is not yet offline for the others.
    ("Failed to connect to cluster member", ClusterSilent),
    ("Missing event connection with target cluster member", ClusterSilent),
    # There is no quorum.
    ("no known leader", ClusterSilent),
    ("no available cowsql leader", ClusterSilent),
    # The client's first request, before it asks for anything: over a forwarded socket a daemon that
    # is down takes the connection, and breaks it.
    ('Get "http://unix.socket/1.0": ', DaemonUnreachable),
    ("The incus daemon doesn't appear to be started", DaemonUnreachable),
    ("connection refused", DaemonUnreachable),
    ("Server isn't ready yet", DaemonUnreachable),
    ("connect: no such file or directory", DaemonUnreachable),
    ("Daemon is shutting down", DaemonUnreachable),
    # The way to a host over TLS: a name, a route, a firewall.
    ("no such host", DaemonUnreachable),
    ("Temporary failure in name resolution", DaemonUnreachable),
    ("server misbehaving", DaemonUnreachable),
    ("no route to host", DaemonUnreachable),
    ("network is unreachable", DaemonUnreachable),
    ("connect: connection timed out", DaemonUnreachable),
    ("dial tcp", DaemonUnreachable),
    ("TLS handshake timeout", DaemonUnreachable),
    ("Unable to connect to", DaemonUnreachable),
    ("close 1006", OutcomeUnknown),
    # A client that is so slow to connect that an exec gives up before it begins.
    ("Only running operations can be connected", OutcomeUnknown),
    ("Timed out waiting for websockets to connect", OutcomeUnknown),
    # Of the daemon's own call to its cluster's database.
    ("context deadline exceeded", OutcomeUnknown),
    ("connection reset by peer", OutcomeUnknown),
    ("unexpected EOF", OutcomeUnknown),
    (": EOF", OutcomeUnknown),
    ("Instance is busy running", InstanceBusy),
    ("Instance not found", InstanceNotFound),
    ("Project not found", ProjectNotFound),
    ("Storage pool not found", PoolNotFound),
    ("Storage pool volume not found", VolumeNotFound),
    ("Storage volume not found", VolumeNotFound),
    ("storage volume is still in use", VolumeInUse),
    ("olume is still in use by running instances", VolumeInUse),
    ("Image not found", ImageNotFound),
    ("Image not available on any online member", ImageAway),
    ("UNIQUE constraint failed: instances.project_id", NameTaken),
    ("UNIQUE constraint failed: index 'storage_volumes_unique", NameTaken),
    ("idmapping abilities are required", MappingUnsupported),
    ("contain an existing filesystem", LeftByEarlierDaemon),
    ("Storage pool directory", LeftByEarlierDaemon),
    ("already exists", NameTaken),
    ("already running", AlreadyDone),
    ("already stopped", AlreadyDone),
    ("matching non-reusable operation has now succeeded", AlreadyDone),
    ("Instance is not running", InstanceNotRunning),
    ("instance is currently running", InstanceRunning),
    ("Instance is running", InstanceRunning),
    ("Instance is frozen", InstanceFrozen),
    ("VM agent isn't currently running", AgentAway),
    ("Failed to connect to the agent", AgentAway),
    ('Instance type "virtual-machine" is not supported', VirtualMachinesUnsupported),
    ("incusd: cannot allocate memory", DaemonOutgrown),
    ("run out of disk space", PoolFull),
    ("no space left on device", PoolFull),
    ("No space left on device", PoolFull),
    ("Disk quota exceeded", PoolFull),
    # tar, if a part of a block still had room.
    (": Wrote only ", PoolFull),
    ("disk quota exceeded", GuestDiskFull),
    ("No matching certificate add operation found", TokenRefused),
    ("Certificate fingerprint mismatch", CertificateChanged),
    ("Missing TLS client certificate", NotTrusted),
    ("Unauthenticated image queries", NotTrusted),
    ("Client is already trusted", AlreadyDone),
    ("Failed checking if instance creation allowed", RestrictedProject),
    ("project doesn't allow cluster member targeting", RestrictedProject),
    ("User does not have permission", ProjectForbidden),
    ("Certificate is restricted", ProjectForbidden),
    ("don't have the needed permissions", NotPermitted),
    ("not authorized", NotPermitted),
    ("permission denied", NotPermitted),
)


# How Go's HTTP client tells that a request got no answer, whatever the reason: the connection was
# closed while it still sent, or sat idle, or broke in the middle of a header.
_REQUEST_BROKE = re.compile(r'(Get|Head|Post|Put|Patch|Delete) "https?://[^"]*": ')

# Failures of the connection, not of the request.
_TRANSPORT = (DaemonUnreachable, OutcomeUnknown, AgentAway, MemberOffline)


def broken_off(
    argv: Sequence[str], exit_code: int, stderr: bytes, *, on: str = ""
) -> IncusError | None:
    """The error if the connection broke, None if the command itself ended.

    The client's exit code cannot tell: it is 1 for most broken connections and 255 for a VM whose
    agent was stopped, but a command in a guest may exit with either. So this looks at the client's
    last line of stderr, and whether a signal killed the client.
    """
    if exit_code == 0:
        return None
    if exit_code > 1:
        last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        if not issubclass(classify(f"Error: {last.removeprefix('Error: ')}"), _TRANSPORT):
            return None
    error = failed_call(argv, exit_code, stderr, on=on)
    return error if isinstance(error, _TRANSPORT) else None


def classify(stderr: str) -> type[IncusError]:
    """The type of a failure, from the client's error message."""
    message = stderr.rpartition("Error: ")[2]
    if message.startswith(_BROKE):
        return OutcomeUnknown
    if message.startswith('The remote "') and "doesn't exist" in message:
        return RemoteMissing
    if message.startswith('Image "') and "not found" in message:
        return ImageNotFound
    broken = OutcomeUnknown if _REQUEST_BROKE.match(message) else IncusError
    return next((kind for text, kind in _TEXTS if text in message), broken)


def failed_call(argv: Sequence[str], exit_code: int, stderr: bytes, *, on: str = "") -> IncusError:
    """The error for a command with a non-zero exit code; `on` is the `Host.on` of its host."""
    text = stderr.decode("utf-8", "replace").strip()
    message = text.rpartition("Error: ")[2].strip() or f"exit code {exit_code}"
    if exit_code < 0:
        kind: type[IncusError] = OutcomeUnknown
        message = f"the client was killed by signal {-exit_code}"
    else:
        kind = classify(text)
    return kind(
        f"incus {verb(argv)}{on} failed: {kind.says}{_clipped(message.splitlines()[0], MAX_BRIEF)}",
        details=f"{pasted(argv)}\nexit code {exit_code}\n{_clipped(text, MAX_DETAILS)}",
        resolution=hint_for(kind, on),
    )


def hint_for(kind: type[IncusError], on: str) -> str:
    """What to do about such an error on the host of this `Host.on`."""
    return kind.hint.format(on=on, look=look_command(on))


def look_command(on: str) -> str:
    """The command that looks at the host of this `Host.on`."""
    return f"pikaci host check {on.removeprefix(' on ')}" if on else "pikaci doctor"


def pasted(argv: Sequence[str]) -> str:
    """The command, ready to paste into a shell, clipped to a readable length."""
    return f"$ {_clipped(shlex.join(argv), MAX_DETAILS)}"


def verb(argv: Sequence[str]) -> str:
    """The subcommand (`image list`), for messages."""
    words = [word for word in argv[1:3] if word.isalpha()]
    return " ".join(words if words[:1] in (["image"], ["storage"], ["profile"]) else words[:1])


def _clipped(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}..."
