"""What the incus command says when it fails, as types.

Every failure of the client, of the transport and of the daemon is exit code 1 with a text
after `Error: `. This file is the one place where such texts are read.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import ClassVar

from states.errors import PikaciError


class IncusError(PikaciError):
    """An incus command failed. `retryable`: the same call may succeed later."""

    retryable: ClassVar[bool] = False
    hint: ClassVar[str] = ""


class IncusMissing(IncusError):
    """There is no incus command on this host."""

    hint = "install the package incus-client, or run `make setup` in a checkout of pikaci"


class DaemonUnreachable(IncusError):
    """No daemon answers."""

    retryable = True
    hint = "`pikaci doctor` says what is missing"


class OutcomeUnknown(IncusError):
    """The connection broke in the middle: the call may have been carried out or not."""

    retryable = True


class InstanceBusy(IncusError):
    """Another operation on the instance is still going on."""

    retryable = True


class DeadlinePassed(IncusError):
    """The command did not end in time, and was killed."""

    retryable = True


class InstanceNotFound(IncusError):
    """There is no instance of this name."""


class ImageNotFound(IncusError):
    """There is no image of this name, or no such project."""


class NameTaken(IncusError):
    """An instance of this name exists already."""


class InstanceNotRunning(IncusError):
    """The guest is gone."""


class PoolFull(IncusError):
    """The storage pool has no room."""

    hint = "`pikaci gc` frees what pikaci holds; `incus storage info pikaci` shows the pool"


class NotPermitted(IncusError):
    """The user may not do this."""

    hint = "be root, or a member of the group incus-admin (which is as good as root)"


class AlreadyDone(IncusError):
    """The instance is in the wanted state already."""


_TEXTS: tuple[tuple[str, type[IncusError]], ...] = (
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
    ("Image not found", ImageNotFound),
    ("UNIQUE constraint failed: instances.project_id", NameTaken),
    ("already exists", NameTaken),
    ("already running", AlreadyDone),
    ("already stopped", AlreadyDone),
    ("matching non-reusable operation has now succeeded", AlreadyDone),
    ("Instance is not running", InstanceNotRunning),
    ("run out of disk space", PoolFull),
    ("no space left on device", PoolFull),
    ("No space left on device", PoolFull),
    ("Disk quota exceeded", PoolFull),
    ("don't have the needed permissions", NotPermitted),
    ("not authorized", NotPermitted),
    ("permission denied", NotPermitted),
)


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
    kind = classify(text)
    return kind(
        f"incus {verb(argv)} failed: {message.splitlines()[0]}",
        details=f"$ {shlex.join(argv)}\nexit code {exit_code}\n{text}",
        resolution=kind.hint,
    )


def verb(argv: Sequence[str]) -> str:
    """The words of the command that say what it does (`image list`), for messages."""
    words = [word for word in argv[1:3] if word.isalpha()]
    return " ".join(words if words[:1] in (["image"], ["storage"], ["profile"]) else words[:1])
