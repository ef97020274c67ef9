"""Adds our few files to a Debian base, as an image for Incus. Runs nothing in it."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from orchestrator.contract import contract, guest_files

CREATION_DATE = 1_700_000_000  # fixed, so that equal inputs give an equal image
RECIPE_PROPERTY = "pikaci.recipe"

_LIB = "usr/lib/pikaci"
_UNITS = "usr/lib/systemd/system"
_RUNNER = "pikaci-incus-run"
_EGRESS = "pikaci-egress"
# The same as in the guest without an init system: DHCP, if there is a device, a container's or a
# VM's.
_NETWORK = "[Match]\nName=eth0 enp5s0\n\n[Network]\nDHCP=ipv4\n"


@dataclass(frozen=True)
class Kind:
    """A kind of Debian guest: its additional packages, and which of our files it gets.

    `scripts` and `units` are names in nix/guest; the units start at boot. `files` are further
    files, `{path: content}`, and `links` symbolic links, `{path: target}`. `lines` are shell lines
    that root runs in the base when its packages are installed.

    A `machine` is a virtual machine: with a kernel, on a disk. `before` and `after` are lines that
    root runs on the base's directory, before its packages are installed and when they are.
    """

    alias: str
    packages: tuple[str, ...]
    scripts: tuple[str, ...]
    units: tuple[str, ...] = ()
    files: dict[str, str] | None = None
    links: dict[str, str] | None = None
    lines: tuple[str, ...] = ()
    machine: bool = False
    before: str = ""
    after: str = ""


def tmpfiles() -> str:
    """The contract's directories as rules for tmpfiles.d; parents come first."""
    ours = contract()
    rules = [f"d {d.path} {d.mode} {d.user} {d.group} -" for d in ours.directories]
    # /run is empty at boot, so the paths of our programs are links.
    links = [
        f"L+ {ours.runner} - - - - /{_LIB}/{_RUNNER}",
        f"L+ {ours.egress.program} - - - - /{_LIB}/{_EGRESS}",
    ]
    return "\n".join([*rules, *links, ""])


def _plain_directories() -> str:
    return "".join(f"{d.path} {d.user} {d.group} {d.mode}\n" for d in contract().directories)


BARE = Kind(
    alias="pikaci/dev",
    packages=("udhcpc",),
    scripts=(_RUNNER, _EGRESS, "pikaci-deadline"),
    files={f"{_LIB}/directories": _plain_directories()},
)
SYSTEMD = Kind(
    alias="pikaci/systemd",
    packages=("dbus", "systemd", "systemd-resolved", "systemd-sysv"),
    scripts=(_RUNNER, _EGRESS, "pikaci-deadline", "pikaci-ready"),
    units=("pikaci-deadline.service", "pikaci-ready.service"),
    files={
        "usr/lib/tmpfiles.d/pikaci.conf": tmpfiles(),
        "etc/systemd/network/80-pikaci.network": _NETWORK,
    },
    links={
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": (
            f"/{_UNITS}/systemd-networkd.service"
        ),
        "etc/resolv.conf": "/run/systemd/resolve/stub-resolv.conf",
    },
)


def lay(base: Path, image: Path, kind: Kind, properties: dict[str, str]) -> Path:
    """Write the image: the base, the files of this kind, and metadata with the properties."""
    shutil.copyfile(base, image)
    user = contract().user
    with tarfile.open(image, "a", format=tarfile.GNU_FORMAT) as archive:
        for directory in contract().directories:
            owner = (user.uid, user.gid) if directory.user == user.name else (0, 0)
            _add(archive, f"rootfs{directory.path}", None, int(directory.mode, 8), owner=owner)
        _add(archive, f"rootfs/{_LIB}", None, 0o755)
        for path, content in _files(kind).items():
            script = content.startswith(b"#!")
            _add(archive, f"rootfs/{path}", content, 0o755 if script else 0o644)
        for path, target in _links(kind).items():
            _link(archive, f"rootfs/{path}", target)
        _add(archive, "metadata.yaml", _metadata(properties), 0o644)
    return image


def inputs(kind: Kind) -> bytes:
    """All that `lay` adds to a base, for a digest."""
    added = {**_files(kind), **{path: target.encode() for path, target in _links(kind).items()}}
    return repr(sorted(added.items())).encode() + Path(__file__).read_bytes()


def _files(kind: Kind) -> dict[str, bytes]:
    files = {path: content.encode() for path, content in (kind.files or {}).items()}
    files |= {f"{_LIB}/{name}": _ours(name) for name in kind.scripts}
    files |= {f"{_UNITS}/{name}": _ours(name) for name in kind.units}
    if not kind.units:
        files["usr/sbin/init"] = _ours("init")
    return files


def _links(kind: Kind) -> dict[str, str]:
    wanted = f"{_UNITS}/multi-user.target.wants"
    return (kind.links or {}) | {f"{wanted}/{name}": f"../{name}" for name in kind.units}


def _ours(name: str) -> bytes:
    return (guest_files() / name).read_bytes()


def _add(
    archive: tarfile.TarFile,
    name: str,
    content: bytes | None,
    mode: int,
    *,
    owner: tuple[int, int] = (0, 0),
) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.mode, info.mtime = mode, CREATION_DATE
    info.uid, info.gid = owner
    info.size = len(content or b"")
    archive.addfile(info, io.BytesIO(content or b""))


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime = tarfile.SYMTYPE, target, CREATION_DATE
    archive.addfile(info)


def _metadata(properties: dict[str, str]) -> bytes:
    # JSON, which is YAML too.
    return msgspec.json.encode(
        {
            "architecture": os.uname().machine,
            "creation_date": CREATION_DATE,
            "properties": {
                "architecture": os.uname().machine,
                contract().image_property: str(contract().version),
                contract().minor_property: str(contract().minor),
                **properties,
            },
        }
    )
