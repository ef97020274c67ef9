"""The ssh commands that reach a host, and what ssh says when it fails. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.hosts.far_shell import SHELL
from orchestrator.hosts.settings import HostSettings
from orchestrator.incus.errors import DaemonUnreachable, HostRefused, IncusError

CONNECT_SECS = 15
# A connection that is silent for so long counts as broken.
ALIVE_SECS, ALIVE_COUNT = 5, 3
# What ssh gets of our environment: the rest may hold secrets of jobs.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR")


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of ssh."""
    return {**{name: ours[name] for name in _INHERITED if name in ours}, "LC_ALL": "C.UTF-8"}


def session_argv(settings: HostSettings, directory: Path) -> list[str]:
    """The one connection: it forwards Incus's socket, and runs `SHELL` there.

    With a session the connection has no delay; with `-N` each small packet may wait
    (measured: 60 ms for each exec). It ends when its stdin is closed. `directory` is a private one
    here, for the socket and for the master's.
    """
    own = {
        "ControlMaster": "yes",
        "ControlPersist": "no",
        "ExitOnForwardFailure": "yes",
        "StreamLocalBindUnlink": "yes",
        "StreamLocalBindMask": "0177",
    }
    forward = f"{forwarded_socket(directory)}:{settings.socket}"
    return _argv(settings, directory, own, "-L", forward)


def shell_argv(settings: HostSettings, directory: Path) -> list[str]:
    """Another `SHELL` on the same connection, for what has much to read."""
    return _argv(settings, directory, {"ControlMaster": "no", "ClearAllForwardings": "yes"})


def forwarded_socket(directory: Path) -> Path:
    """The socket here that leads to Incus's socket there."""
    return directory / "incus"


def _argv(settings: HostSettings, directory: Path, own: Mapping[str, str], *more: str) -> list[str]:
    assert settings.ssh is not None
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_SECS),
        "ServerAliveInterval": str(ALIVE_SECS),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "ControlPath": str(directory / "ssh"),
        # What a user's configuration may turn on for people.
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "EscapeChar": "none",
        "LogLevel": "INFO",
        **own,
    }
    argv = ["ssh", "-T"]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    if settings.port is not None:
        argv += ["-p", str(settings.port)]
    if settings.identity is not None:
        argv += ["-i", settings.identity, "-o", "IdentitiesOnly=yes"]
    return [*argv, *more, "--", settings.ssh, SHELL]


_REFUSALS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "has another key than the one that is known here",
        "find out why first; then `ssh-keygen -R HOST` removes the old key",
    ),
    (
        "Host key verification failed",
        "has a key that is not known here",
        "compare it: log in once with `ssh {ssh}`, and accept the key",
    ),
    (
        "Permission denied (",
        "refused the login",
        "`ssh -o BatchMode=yes {ssh} true` must work: put your public key there with `ssh-copy-id`,"
        " or name the private key with `identity`",
    ),
    (
        "Too many authentication failures",
        "refused the login",
        "name the private key with `identity`",
    ),
    (
        "unix domain socket",
        "cannot have its socket forwarded: ssh cannot make one here",
        "set TMPDIR to a directory with a short path",
    ),
)


def forwarding_forbidden(name: str, settings: HostSettings) -> HostRefused:
    """The error for a host whose Incus is there, but not at the end of the forwarded socket."""
    return HostRefused(
        f"the host {name} ({settings.ssh}) forbids the forwarding of Incus's socket",
        resolution="its sshd needs `AllowStreamLocalForwarding yes` (or `local`) for this user, and"
        " no `DisableForwarding`; the options of the key there must allow `port-forwarding`",
    )


def ssh_error(name: str, settings: HostSettings, stderr: str, problem: str) -> IncusError:
    """The error for a connection that failed with this stderr; `problem` says how, if that is all.

    `HostRefused` for what only a person can change.
    """
    said = stderr.strip()
    for text, brief, resolution in _REFUSALS:
        if text in said:
            return HostRefused(
                f"the host {name} ({settings.ssh}) {brief}",
                details=said,
                resolution=resolution.format(ssh=settings.ssh),
            )
    last = said.splitlines()[-1] if said else problem
    return DaemonUnreachable(
        f"the host {name} ({settings.ssh}) cannot be reached: {last}",
        details=said,
        resolution=f"`ssh -v {settings.ssh} true` shows where it stops",
    )
