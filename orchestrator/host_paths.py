"""Which directories of this host a job may mount.

A mount is read-only, but a guest's root can read every file and connect to every socket in it: with
Incus's socket, the guest is root on the host. So directories that give control over the host are
refused, whatever path leads to them. An operator can restrict mounts further.

Comparing paths is not enough: a bind mount gives a directory a second path. But the kernel tells
for every path its file system and its position there, and that pair is unique.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.incus import Host
from orchestrator.state_root import user_state_dir
from states.errors import SpecError
from states.mistakes import raise_all
from states.spec import JobSpec

DIRECTORY_KEYS = ("workspace_deps", "workspace_build", "nix_store")

_INCUS, _ENGINE, _PIKACI = "Incus", "a container engine", "pikaci's state"
# Paths that give control over the host, and their owners. Refused: these, everything that contains
# one, and everything below one.
_CONTROLS = {
    "/dev": "the host's devices",
    "/proc": "the host's processes",
    "/sys": "the host's kernel",
    "/run": "the host's sockets",
    "/var/run": "the host's sockets",
    "/var/lib/incus": _INCUS,
    "/var/log/incus": _INCUS,
    "/var/lib/lxd": "LXD",
    "/var/snap/lxd": "LXD",
    "/var/lib/containerd": _ENGINE,
    "/var/lib/containers": _ENGINE,
    "/var/lib/docker": _ENGINE,
    "/var/lib/kubelet": "Kubernetes",
    "/var/lib/rancher": "Kubernetes",
    "/var/lib/libvirt": "libvirt",
    "/nix/var/nix/daemon-socket": "the nix daemon",
}
_VARIABLES = {
    "INCUS_DIR": _INCUS,
    "INCUS_SOCKET": _INCUS,
    "INCUS_CONF": "Incus's client",
    "LXD_DIR": "LXD",
    "DOCKER_HOST": _ENGINE,
    "CONTAINER_HOST": _ENGINE,
    "PIKACI_STATE_ROOT": _PIKACI,
}
# File systems that give access to the kernel, wherever they are mounted.
_KERNEL_FILE_SYSTEMS = frozenset(
    "bpf binfmt_misc cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl"
    " mqueue nsfs proc pstore securityfs selinuxfs sysfs tracefs".split()
)


HERE = Host()


@dataclass(frozen=True)
class MountRule:
    """What jobs on `host` may mount: nothing in state `roots`, and only what is below `allowed`.

    None allows every directory that gives no control over the host. On a host that is not this
    machine jobs mount no directories of it.
    """

    roots: Sequence[Path] = ()
    allowed: Sequence[Path] | None = None
    host: Host = HERE

    def check(self, spec: JobSpec) -> None:
        """Raise `SpecError` for the directories that may not be mounted. See `refused`."""
        raise_all(self.refused(spec))

    def refused(self, spec: JobSpec) -> Iterator[SpecError]:
        """The directories that may not be mounted.

        The spec must have real paths. Looks at the disk, but only if there is something to mount.
        """
        if not (sources := directories(spec)):
            return
        if not self.host.is_local:
            for key, source in sources:
                yield SpecError(
                    key,
                    f"{source!r} would be a directory of the host {self.host.name}, which jobs may"
                    " not mount",
                    allowed="another job's output, `{ job = NAME }`, or a directory of the"
                    " workspace, which the job sees at /workspace/snapshot",
                )
            return
        mounts = _mounts()
        controls = [_Control.at(path, whose, mounts) for path, whose in self._controls()]
        for key, source in sources:
            if why := _gives_control(source, _place(source, mounts), controls):
                yield SpecError(
                    key,
                    f"{source!r} {why}: a guest that mounts it could control this host",
                    allowed="a directory of data: not one of the kernel, Incus, a container engine"
                    " or pikaci, and none with a socket that a program listens on",
                )
            elif not self._allows(source):
                yield SpecError(
                    key,
                    f"{source!r} is not a directory that jobs of this service may mount",
                    allowed=f"{', '.join(self._allowed()) or 'none'}; to change it, start it with"
                    f" `pikaci serve --allow-mounts {source}`, or run the job without it:"
                    " `pikaci run --state-root DIRECTORY`",
                )

    def check_again(self, spec: JobSpec) -> None:
        """`check`, right before what passed it at its submission is mounted.

        Whoever can write beside a directory can put a link in its place meanwhile.
        """
        for key, source in directories(spec):
            if (real := os.path.realpath(source)) != source or not os.path.isdir(real):
                now = f"now leads to {real!r}" if real != source else "is not one any more"
                raise SpecError(
                    key,
                    f"{source!r} was a directory when the job was submitted, and {now}",
                    allowed="a directory that stays until its job has begun; submit the job again",
                )
        self.check(spec)

    def _controls(self) -> Iterator[tuple[str, str]]:
        yield from _CONTROLS.items()
        for name, whose in _VARIABLES.items():
            path = os.environ.get(name, "").removeprefix("unix://")
            if path.startswith("/"):
                yield path, whose
        for root in (*self.roots, user_state_dir()):
            yield str(root), _PIKACI
        yield os.path.expanduser("~/.config/incus"), "Incus's client"
        for path in _bound_sockets():
            yield path, "a socket that a program listens on"

    def _allows(self, source: str) -> bool:
        return self.allowed is None or any(_covers(path, source) for path in self._allowed())

    def _allowed(self) -> list[str]:
        return [os.path.realpath(path) for path in self.allowed or ()]


def directories(spec: JobSpec) -> list[tuple[str, str]]:
    """The host directories that a spec mounts, each with its key."""
    named = [(key, path) for key in DIRECTORY_KEYS if isinstance(path := getattr(spec, key), str)]
    mounts = [
        (f"mounts[{index}].source", mount.source)
        for index, mount in enumerate(spec.mounts)
        if isinstance(mount.source, str)
    ]
    return named + mounts


def mounts_below(source: str) -> list[str]:
    """The points of other mounts below a directory, a real path."""
    points = {mount.point for mount in _mounts().values()}
    return sorted(point for point in points if point != source and _covers(source, point))


@dataclass(frozen=True)
class _Mount:
    """A line of mountinfo: `root` of the file system `device` is mounted at `point`."""

    device: str
    root: str
    point: str
    kind: str


@dataclass(frozen=True)
class _Place:
    """Where a file really is: its file system, and its path there."""

    device: str
    path: str
    kind: str


@dataclass(frozen=True)
class _Control:
    """A path that gives control over the host; `real` has no symbolic links."""

    path: str
    whose: str
    real: str
    place: _Place | None

    @classmethod
    def at(cls, path: str, whose: str, mounts: Mapping[int, _Mount]) -> _Control:
        real = os.path.realpath(path)
        return cls(path, whose, real, _place(real, mounts))

    def relation(self, source: str, place: _Place | None) -> str:
        """How a source relates to this path ("is", "contains", "lies below"), or ""."""
        pairs = [(self.path, source), (self.real, source)]
        if place is not None and self.place is not None and place.device == self.place.device:
            pairs.append((self.place.path, place.path))
        for ours, theirs in pairs:
            if ours == theirs:
                return "is"
            if _covers(theirs, ours):
                return "contains"
            if _covers(ours, theirs):
                return "lies below"
        return ""


def _gives_control(source: str, place: _Place | None, controls: Sequence[_Control]) -> str:
    """How a guest that mounts it would control this host, empty when it would not."""
    for control in controls:
        if relation := control.relation(source, place):
            return f"{relation} {control.path} ({control.whose})"
    if place is not None and place.kind in _KERNEL_FILE_SYSTEMS:
        return f"is on {place.kind}, a file system of the kernel"
    return ""


def file_system_of(path: str) -> str:
    """The kind of the file system that a path is on (`ext4`, `overlay`); "" if it is not known."""
    place = _place(os.path.realpath(path), _mounts())
    return place.kind if place is not None else ""


def _covers(parent: str, path: str) -> bool:
    return path == parent or path.startswith(f"{parent.rstrip('/')}/")


def _mounts() -> dict[int, _Mount]:
    """The mounts that this process sees, by mount id."""
    mounts = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            kind = fields[fields.index("-", 6) + 1]
            root, point = (_unescaped(field) for field in fields[3:5])
            mounts[int(fields[0])] = _Mount(fields[2], root, point, kind)
    return mounts


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _place(path: str, mounts: Mapping[int, _Mount]) -> _Place | None:
    """The place of a path without links, existing or not. None if its mount is not known."""
    there, missing = path, ""
    while (fd := _open_path(there)) is None:
        if there in ("/", ""):
            return None
        there, name = os.path.split(there)
        missing = os.path.join(name, missing)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as lines:
            number = next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    mount = mounts.get(number)
    if mount is None:
        return None
    whole = os.path.join(mount.root, os.path.relpath(there, mount.point), missing)
    return _Place(mount.device, os.path.normpath(whole), mount.kind)


def _open_path(path: str) -> int | None:
    # O_PATH needs no permission except search permission on the parents.
    try:
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None


def _bound_sockets() -> set[str]:
    """The paths of sockets that programs of this host are bound to."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
        named = [line.rstrip("\n").split(maxsplit=7) for line in lines]
    paths = {words[7] for words in named if len(words) == 8 and words[7].startswith("/")}
    # Skip sockets bound through /proc/self: here that path means this process. Skip paths that are
    # no sockets here: theirs are in another mount namespace.
    return {path for path in paths if not path.startswith("/proc/") and _is_socket(path)}


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except PermissionError:
        return True  # may be one: Incus mounts as root, which can look
    except OSError:
        return False
