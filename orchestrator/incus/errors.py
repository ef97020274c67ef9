"""Maps the error messages of the incus command to exception types.

Every failure of the client, the transport or the daemon is exit code 1 with a message after `Error:
`. Only this file reads these messages.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import ClassVar

from states.errors import PikaciError

# A tar on a full disk complains about every file.
MAX_BRIEF, MAX_DETAILS = 300, 4000


class IncusError(PikaciError):
    """An incus command failed.

    `retryable`: the same call may succeed later. `answered`: the call is over; otherwise Incus may
    have carried it out, or may still do so.
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
    hint = "`pikaci doctor` says what is missing"


class MemberOffline(DaemonUnreachable):
    """The cluster member that has, or should have, the instance does not answer."""

    hint = "`incus cluster list` shows the members"


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


class ProjectNotFound(IncusError):
    """No project has this name."""

    hint = "`pikaci setup` creates the project"


class PoolNotFound(IncusError):
    """No storage pool has this name."""


class NameTaken(IncusError):
    """An instance with this name exists already."""


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


class InstanceFrozen(IncusError):
    """The guest is frozen."""

    hint = "`incus resume` unfreezes an instance"


class PoolFull(IncusError):
    """The storage pool is full."""

    says = "the storage pool is full: "
    hint = "`pikaci gc` frees space that pikaci uses; `incus storage info pikaci` shows the pool"


class MappingUnsupported(IncusError):
    """A mounted directory is on a file system whose owners cannot be mapped, such as overlayfs."""


class GuestDiskFull(IncusError):
    """Incus could not note something on the instance's own disk, which is full.

    It says so when it has stopped the guest; the next call does the rest.
    """

    retryable = True
    says = "the guest's disk is full: "


class LeftByEarlierDaemon(IncusError):
    """The disk file or directory for a new storage pool exists already, but belongs to no pool."""

    hint = "a removed Incus left it behind; delete the file or directory, and try again"


class NotPermitted(IncusError):
    """The user may not do this."""

    hint = "be root, or a member of the group incus-admin (which is as good as root)"


class AlreadyDone(IncusError):
    """The instance is already in the requested state."""


_TEXTS: tuple[tuple[str, type[IncusError]], ...] = (
    # First: some of these messages also contain "connection refused".
    ("Failed to connect to cluster member", MemberOffline),
    ("cluster member is offline", MemberOffline),
    ("The cluster member hosting", MemberOffline),
    ("Cluster member is evacuated", MemberOffline),
    ("no known leader", MemberOffline),
    ("The incus daemon doesn't appear to be started", DaemonUnreachable),
    ("connection refused", DaemonUnreachable),
    ("Server isn't ready yet", DaemonUnreachable),
    ("connect: no such file or directory", DaemonUnreachable),
    ("Daemon is shutting down", DaemonUnreachable),
    ("close 1006", OutcomeUnknown),
    ("connection reset by peer", OutcomeUnknown),
    ("unexpected EOF", OutcomeUnknown),
    (": EOF", OutcomeUnknown),
    ("Instance is busy running", InstanceBusy),
    ("Instance not found", InstanceNotFound),
    ("Project not found", ProjectNotFound),
    ("Storage pool not found", PoolNotFound),
    ("Image not found", ImageNotFound),
    ("UNIQUE constraint failed: instances.project_id", NameTaken),
    ("idmapping abilities are required", MappingUnsupported),
    ("contain an existing filesystem", LeftByEarlierDaemon),
    ("Storage pool directory", LeftByEarlierDaemon),
    ("already exists", NameTaken),
    ("already running", AlreadyDone),
    ("already stopped", AlreadyDone),
    ("matching non-reusable operation has now succeeded", AlreadyDone),
    ("Instance is not running", InstanceNotRunning),
    ("Instance is frozen", InstanceFrozen),
    ("VM agent isn't currently running", AgentAway),
    ("Failed to connect to the agent", AgentAway),
    ('Instance type "virtual-machine" is not supported', VirtualMachinesUnsupported),
    ("run out of disk space", PoolFull),
    ("no space left on device", PoolFull),
    ("No space left on device", PoolFull),
    ("Disk quota exceeded", PoolFull),
    ("disk quota exceeded", GuestDiskFull),
    ("don't have the needed permissions", NotPermitted),
    ("not authorized", NotPermitted),
    ("permission denied", NotPermitted),
)


# Failures of the connection, not of the request.
_TRANSPORT = (DaemonUnreachable, OutcomeUnknown, AgentAway)


def broken_off(argv: Sequence[str], exit_code: int, stderr: bytes) -> IncusError | None:
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
    error = failed_call(argv, exit_code, stderr)
    return error if isinstance(error, _TRANSPORT) else None


def classify(stderr: str) -> type[IncusError]:
    """The type of a failure, from the client's error message."""
    message = stderr.rpartition("Error: ")[2]
    if message.startswith('Image "') and "not found" in message:
        return ImageNotFound
    return next((kind for text, kind in _TEXTS if text in message), IncusError)


def failed_call(argv: Sequence[str], exit_code: int, stderr: bytes) -> IncusError:
    """The error for a command with a non-zero exit code."""
    text = stderr.decode("utf-8", "replace").strip()
    message = text.rpartition("Error: ")[2].strip() or f"exit code {exit_code}"
    if exit_code < 0:
        kind: type[IncusError] = OutcomeUnknown
        message = f"the client was killed by signal {-exit_code}"
    else:
        kind = classify(text)
    return kind(
        f"incus {verb(argv)} failed: {kind.says}{_clipped(message.splitlines()[0], MAX_BRIEF)}",
        details=f"{pasted(argv)}\nexit code {exit_code}\n{_clipped(text, MAX_DETAILS)}",
        resolution=kind.hint,
    )


def pasted(argv: Sequence[str]) -> str:
    """The command, ready to paste into a shell, clipped to a readable length."""
    return f"$ {_clipped(shlex.join(argv), MAX_DETAILS)}"


def verb(argv: Sequence[str]) -> str:
    """The subcommand (`image list`), for messages."""
    words = [word for word in argv[1:3] if word.isalpha()]
    return " ".join(words if words[:1] in (["image"], ["storage"], ["profile"]) else words[:1])


def _clipped(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}..."
