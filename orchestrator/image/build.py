"""Builds the Debian guest image: a cached base, and our few files on top of it.

mmdebstrap builds the base, which is slow. The base is cached under the digest of its inputs, so a
new runner or contract takes only seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from orchestrator.contract import contract, guest_files
from orchestrator.image.debian import DebianSources, debian_sources, without_credentials
from orchestrator.image.disk import disk_inputs, make_disk
from orchestrator.image.layer import (
    BARE,
    CREATION_DATE,
    RECIPE_PROPERTY,
    SYSTEMD,
    Kind,
    inputs,
    lay,
)
from orchestrator.image.machine import VM
from orchestrator.incus.retries import stop_family
from states.errors import PikaciError

# What everyday projects expect of a machine; docs/images.md shows the list.
PACKAGES = (
    "bash",
    "bzip2",
    "ca-certificates",
    "cmake",
    "coreutils",
    "curl",
    "file",
    "findutils",
    "g++",
    "gcc",
    "git",
    "iproute2",
    "jq",
    "less",
    "libc6-dev",
    "make",
    "mount",
    "netbase",
    "openssh-client",
    "patch",
    "pkg-config",
    "procps",
    "python3",
    "python3-pip",
    "python3-venv",
    "rsync",
    "tar",
    "unzip",
    "util-linux",
    "xz-utils",
    "zip",
    "zstd",
)
BUILD_SECS = 1800
KEEP_BASES = 6  # three kinds of guest, and the previous base of each
# Parts of the package systemd, until Debian 13.
_WITHIN_SYSTEMD = {"bookworm": frozenset({"systemd-repart"})}

# Final changes in the base's root. No useradd: it writes today's date into /etc/shadow.
_CUSTOMIZE = """\
set -e; cd "$1"
echo '{name}:x:{uid}:{gid}::{home}:/bin/bash' >> etc/passwd
echo '{name}:!:1::::::' >> etc/shadow
mkdir -p '.{home}'; chown {uid}:{gid} '.{home}'; chmod 0755 '.{home}'
rm -f etc/resolv.conf; : > etc/resolv.conf; echo guest > etc/hostname; : > etc/machine-id
chmod 0644 etc/resolv.conf etc/hostname
# Jobs can read this file: remove passwords from the host's addresses.
sed -i -E 's,://[^/[:space:]]*@,://,' etc/apt/sources.list
rm -rf var/lib/apt/lists/* var/cache/apt/*.bin
"""


# For one of the kind's lines. Its output is shown if it fails.
_RUN = 'chroot "$1" /usr/bin/env HOME=/root PATH={path} /bin/bash -ec {line} >&2'
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def recipe(sources: DebianSources, kind: Kind = BARE) -> str:
    """The digest of all inputs of the image."""
    digest = hashlib.sha256(_base_digest(sources, kind).encode())
    digest.update((guest_files() / "contract.json").read_bytes())
    digest.update(inputs(kind))
    if kind.machine:
        digest.update(disk_inputs())
    return digest.hexdigest()[:32]


async def build(into: Path, *, say: Callable[[str], None], kind: Kind = BARE) -> list[Path]:
    """Build the image's files in `into`, for `import_image`; `say` reports long steps.

    Call it inside `only_builder`. Raises `PikaciError` if this is not Debian, or mmdebstrap is
    missing or fails.
    """
    sources = sources_of(kind)
    base = _cache_dir() / f"base-{_base_digest(sources, kind)}.tar"
    if kind.lines:  # which may fetch anything: such a base is made anew each time
        base = into / "base.tar"
    if not base.exists():
        say(f"building the base of the guest image, Debian {sources.codename} (about a minute)")
        await _build_base(sources, base, kind)
    say("adding the runner to the base")
    properties = {
        "os": "Debian",
        "release": sources.codename,
        "description": f"pikaci guest, Debian {sources.codename}"
        + (" as a VM" if kind.machine else " with systemd" if kind.units else "")
        + (", customized" if _is_custom(kind) else ""),
        RECIPE_PROPERTY: recipe(sources, kind),
    }
    if kind.machine:
        properties["requirements.secureboot"] = "false"
    image = await trio.to_thread.run_sync(lay, base, into / "pikaci-guest.tar", kind, properties)
    return await make_disk(image, into, say=say) if kind.machine else [image]


def sources_of(kind: Kind) -> DebianSources:
    """Where this machine gets the packages of a kind. Raises what `debian_sources` raises."""
    # Debian 12 has Incus's agent in its backports. No package comes from there that is elsewhere.
    return debian_sources(backports=kind.machine)


@asynccontextmanager
async def only_builder(*, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Lock: one build and import per user at a time; others wait."""
    with (_cache_dir() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of the guest image")
            await trio.to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX, abandon_on_cancel=True)
        yield


def _cache_dir() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    cache = (Path(home) if home.startswith("/") else Path.home() / ".cache") / "pikaci"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    return cache


def _customize() -> str:
    user = contract().user
    return _CUSTOMIZE.format(name=user.name, uid=user.uid, gid=user.gid, home=user.home)


def _packages(kind: Kind, codename: str) -> list[str]:
    within = _WITHIN_SYSTEMD.get(codename, frozenset())
    return sorted({*PACKAGES, *kind.packages} - within)


def _is_custom(kind: Kind) -> bool:
    return kind.lines != () or kind.packages not in (
        BARE.packages,
        SYSTEMD.packages,
        VM.packages,
    )


def _base_digest(sources: DebianSources, kind: Kind) -> str:
    packages = _packages(kind, sources.codename)
    made_from = [sources.codename, *sources.lines, *packages, *kind.lines, _customize()]
    if kind.machine:
        made_from += [kind.before, kind.after]
    return hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]


async def _build_base(sources: DebianSources, base: Path, kind: Kind) -> None:
    if shutil.which("mmdebstrap") is None:
        raise PikaciError(
            "the command mmdebstrap is not installed; it makes the guest's file system",
            resolution="apt-get install mmdebstrap",
        )
    # An archive, not a directory: without root, files in a directory cannot have the guest's
    # owners.
    packed = base.with_name(f"{base.name}.packed")
    for torn in _cache_dir().glob("base-*.tar.*"):
        torn.unlink()  # left by a build that was killed
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--quiet",
        "--format=tar",
        f"--include={','.join(_packages(kind, sources.codename))}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        *(
            f"--customize-hook={_RUN.format(path=_PATH, line=shlex.quote(line))}"
            for line in kind.lines
        ),
        *([f"--essential-hook=set -e; {kind.before}"] if kind.before else []),
        *([f"--customize-hook=set -e; {kind.after}"] if kind.after else []),
        f"--customize-hook={_customize()}",
        sources.codename,
        str(packed),
        "-",
    ]
    try:
        with trio.fail_after(BUILD_SECS):
            done = await trio.run_process(
                command,
                stdin="\n".join(sources.lines).encode() + b"\n",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
                deliver_cancel=stop_family,
                env={**os.environ, "SOURCE_DATE_EPOCH": str(CREATION_DATE), "LC_ALL": "C.UTF-8"},
            )
        if done.returncode != 0:
            raise PikaciError(
                "mmdebstrap could not make the guest's file system",
                details=without_credentials(done.stderr.decode("utf-8", "replace"))[-3000:],
                resolution="`apt-get update` must work on this machine, and `apt-cache show NAME`"
                " must know each --package; then try again",
            )
        await trio.to_thread.run_sync(_as_base, packed, base)
    except trio.TooSlowError:
        raise PikaciError(f"mmdebstrap did not end within {BUILD_SECS} s") from None
    finally:
        packed.unlink(missing_ok=True)


def _as_base(packed: Path, base: Path) -> None:
    """Copy the archive with all names below `rootfs/`; rename it to `base` when it is complete."""
    new = base.with_name(f"{base.name}.new")
    try:
        with (
            tarfile.open(packed, "r:") as archive,
            tarfile.open(new, "w:", format=tarfile.PAX_FORMAT) as moved,
        ):
            for member in archive:
                member.name = f"rootfs/{member.name.removeprefix('./')}".rstrip("/")
                if member.islnk():
                    member.linkname = f"rootfs/{member.linkname.removeprefix('./')}"
                # These would override the new names; keep the rest, such as capabilities.
                member.pax_headers = {
                    key: value
                    for key, value in member.pax_headers.items()
                    if key not in ("path", "linkpath")
                }
                moved.addfile(member, archive.extractfile(member) if member.isreg() else None)
        new.rename(base)
    finally:
        new.unlink(missing_ok=True)
    old = sorted(base.parent.glob("base-*.tar"), key=lambda path: path.stat().st_mtime)
    for path in old[:-KEEP_BASES]:
        path.unlink(missing_ok=True)
