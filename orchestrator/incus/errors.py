"""What the incus command says when it fails, as types.

Every failure of the client, of the transport and of the daemon is exit code 1 with a text
after `Error: `. This file is the one place where such texts are read.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import ClassVar

from states.errors import PikaciError

# A tar that finds no room says so of every file.
MAX_BRIEF, MAX_DETAILS = 300, 4000


class IncusError(PikaciError):
    """An incus command failed.

    `retryable`: the same call may succeed later. `answered`: nothing of what was asked for can
    still happen; else it is not known whether it was, or will be, carried out.
    """

    retryable: ClassVar[bool] = False
    answered: ClassVar[bool] = True
    hint: ClassVar[str] = ""
    says: ClassVar[str] = ""


class IncusMissing(IncusError):
    """There is no incus command on this host."""

    hint = "install the package incus-client, or run `make setup` in a checkout of pikaci"


class DaemonUnreachable(IncusError):
    """No daemon answers."""

    retryable = True
    hint = "`pikaci doctor` says what is missing"


class MemberOffline(DaemonUnreachable):
    """The member of the cluster that has the instance, or should have it, does not answer."""

    hint = "`incus cluster list` shows the members"


class OutcomeUnknown(IncusError):
    """The connection broke in the middle: the call may have been carried out or not."""

    retryable = True
    answered = False


class InstanceBusy(IncusError):
    """Another operation on the instance is still going on."""

    retryable = True


class DeadlinePassed(IncusError):
    """The command did not end in time, and was killed."""

    retryable = True
    answered = False


class OutputTooLong(IncusError):
    """The command printed more than it may, and was killed."""

    answered = False


class AnswerUnreadable(IncusError):
    """The daemon's answer is not of the form that was asked for."""

    retryable = True


class InstanceNotFound(IncusError):
    """There is no instance of this name."""

    retryable = True


class ImageNotFound(IncusError):
    """There is no image of this name, or no such project."""


class ProjectNotFound(IncusError):
    """There is no project of this name."""

    hint = "`pikaci setup` makes the project"


class PoolNotFound(IncusError):
    """There is no storage pool of this name."""


class NameTaken(IncusError):
    """An instance of this name exists already."""


class InstanceNotRunning(IncusError):
    """The guest is gone."""

    retryable = True


class AgentAway(IncusError):
    """Nobody in the VM takes an exec: its agent has not started, or starts anew."""

    retryable = True
    hint = "the image must start Incus's agent; `incus console` shows a VM that boots"


class VirtualMachinesUnsupported(IncusError):
    """This host makes no virtual machines."""

    hint = "docs/vm.md says what a host needs; `incus info` shows the drivers that it has"


class InstanceFrozen(IncusError):
    """Somebody has frozen the guest."""

    hint = "`incus resume` lets a frozen instance go on"


class PoolFull(IncusError):
    """The storage pool has no room."""

    says = "the storage pool has no room: "
    hint = "`pikaci gc` frees what pikaci holds; `incus storage info pikaci` shows the pool"


class LeftByEarlierDaemon(IncusError):
    """A new storage pool's disk file or directory exists, and no pool of the daemon has it."""

    hint = "an Incus that is gone left it; remove the file or directory, and try again"


class NotPermitted(IncusError):
    """The user may not do this."""

    hint = "be root, or a member of the group incus-admin (which is as good as root)"


class AlreadyDone(IncusError):
    """The instance is in the wanted state already."""


_TEXTS: tuple[tuple[str, type[IncusError]], ...] = (
    # First: behind the one or the other stand the words of a connection that was refused.
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
    ("don't have the needed permissions", NotPermitted),
    ("not authorized", NotPermitted),
    ("permission denied", NotPermitted),
)


# Failures of the connection, and not of what was asked over it.
_TRANSPORT = (DaemonUnreachable, OutcomeUnknown, AgentAway)


def broken_off(argv: Sequence[str], exit_code: int, stderr: bytes) -> IncusError | None:
    """The error when it was the connection that ended, and not the command; None when it was not.

    The client's exit code does not tell: it is 1 for most broken connections, 255 for a VM whose
    agent was stopped, and a command in a guest may end with either. So the client's own last words
    do, and a client that was killed by a signal.
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
    """The type of a failure, from the client's own words."""
    message = stderr.rpartition("Error: ")[2]
    if message.startswith('Image "') and "not found" in message:
        return ImageNotFound
    return next((kind for text, kind in _TEXTS if text in message), IncusError)


def failed_call(argv: Sequence[str], exit_code: int, stderr: bytes) -> IncusError:
    """The error for a command that ended with a code other than 0."""
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
    """The command as a person can paste it, at a length that can be read."""
    return f"$ {_clipped(shlex.join(argv), MAX_DETAILS)}"


def verb(argv: Sequence[str]) -> str:
    """The words of the command that say what it does (`image list`), for messages."""
    words = [word for word in argv[1:3] if word.isalpha()]
    return " ".join(words if words[:1] in (["image"], ["storage"], ["profile"]) else words[:1])


def _clipped(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}..."
