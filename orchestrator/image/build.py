"""Builds the Debian guest image: a base that is kept, and our few files on top of it.

The base comes from mmdebstrap and takes its time. It is cached under the digest of what it is
made from, so a new runner or contract costs seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import signal
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from orchestrator.contract import contract, guest_files
from orchestrator.image.debian import DebianSources, debian_sources, without_credentials
from states.errors import PikaciError

PACKAGES = (
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "findutils",
    "gcc",
    "git",
    "iproute2",
    "jq",
    "libc6-dev",
    "make",
    "mount",
    "procps",
    "python3",
    "python3-venv",
    "tar",
    "udhcpc",
    "util-linux",
    "xz-utils",
)
RECIPE_PROPERTY = "pikaci.recipe"
BUILD_SECS = 1800
CLEAN_UP_SECS = 60
CREATION_DATE = 1_700_000_000  # the image is what its inputs are, whenever it is built
KEEP_BASES = 2

# The base's last touch, in its own root. No useradd: it writes the day into /etc/shadow.
_CUSTOMIZE = """\
set -e; cd "$1"
echo '{name}:x:{uid}:{gid}::{home}:/bin/bash' >> etc/passwd
echo '{name}:!:1::::::' >> etc/shadow
mkdir -p '.{home}'; chown {uid}:{gid} '.{home}'; chmod 0755 '.{home}'
: > etc/resolv.conf; echo guest > etc/hostname; : > etc/machine-id
chmod 0644 etc/resolv.conf etc/hostname
# Jobs can read this file: a password in an address of the host's is not for them.
sed -i -E 's,://[^/[:space:]]*@,://,' etc/apt/sources.list
rm -rf var/lib/apt/lists/* var/cache/apt/*.bin
"""


def recipe(sources: DebianSources) -> str:
    """The digest of everything that the image is made from."""
    digest = hashlib.sha256(_base_digest(sources).encode())
    for name in ("contract.json", "init", "pikaci-deadline", "pikaci-incus-run"):
        digest.update((guest_files() / name).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:32]


async def build(into: Path, *, say: Callable[[str], None]) -> Path:
    """Build the image below `into`, for `incus image import`; `say` hears of long steps.

    The caller is the `only_builder`. Raises `PikaciError` when this is no Debian, mmdebstrap is
    missing, or it fails.
    """
    sources = debian_sources()
    cache = _cache_dir()
    base = cache / f"base-{_base_digest(sources)}.tar"
    if not base.exists():
        say(f"building the base of the guest image, Debian {sources.codename} (about a minute)")
        await _build_base(sources, base)
    say("laying the runner on the base")
    return await trio.to_thread.run_sync(_lay, base, into / "pikaci-guest.tar", sources)


@asynccontextmanager
async def only_builder(*, say: Callable[[str], None]) -> AsyncIterator[None]:
    """One build and import of this user at a time; another waits for its end."""
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


def _base_digest(sources: DebianSources) -> str:
    inputs = [sources.codename, *sources.lines, *PACKAGES, _customize()]
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]


async def _build_base(sources: DebianSources, base: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise PikaciError(
            "there is no command mmdebstrap, which makes the guest's file system",
            resolution="apt-get install mmdebstrap",
        )
    # To an archive, not a directory: without root, a directory's owners are not those of the guest.
    packed = base.with_name(f"{base.name}.packed")
    for torn in base.parent.glob("base-*.tar.*"):
        torn.unlink()  # of a build that was killed
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--quiet",
        "--format=tar",
        f"--include={','.join(PACKAGES)}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
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
                deliver_cancel=_end_family,
                env={**os.environ, "SOURCE_DATE_EPOCH": str(CREATION_DATE), "LC_ALL": "C.UTF-8"},
            )
        if done.returncode != 0:
            raise PikaciError(
                "mmdebstrap could not make the guest's file system",
                details=without_credentials(done.stderr.decode("utf-8", "replace"))[-3000:],
                resolution="`apt-get update` must work on this machine; then try again",
            )
        await trio.to_thread.run_sync(_as_base, packed, base)
    except trio.TooSlowError:
        raise PikaciError(f"mmdebstrap did not end within {BUILD_SECS} s") from None
    finally:
        packed.unlink(missing_ok=True)


async def _end_family(process: trio.Process) -> None:
    # mmdebstrap itself ignores TERM. Its children end, and then it unmounts and removes its root,
    # which nobody would after a KILL.
    os.killpg(process.pid, signal.SIGTERM)
    with trio.move_on_after(CLEAN_UP_SECS):
        await process.wait()
        return
    os.killpg(process.pid, signal.SIGKILL)


def _as_base(packed: Path, base: Path) -> None:
    """The same archive with all names below `rootfs/`; it gets its name when it is whole."""
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
                # These would outweigh the names that were just set; capabilities and the like stay.
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


def _lay(base: Path, image: Path, sources: DebianSources) -> Path:
    shutil.copyfile(base, image)
    with tarfile.open(image, "a", format=tarfile.GNU_FORMAT) as archive:
        for directory in contract().directories:
            user = contract().user
            ours = directory.user == user.name
            _add(
                archive,
                f"rootfs{directory.path}",
                None,
                int(directory.mode, 8),
                owner=(user.uid, user.gid) if ours else (0, 0),
            )
        listed = "".join(f"{d.path} {d.user} {d.group} {d.mode}\n" for d in contract().directories)
        _add(archive, "rootfs/usr/lib/pikaci", None, 0o755)
        _add(archive, "rootfs/usr/lib/pikaci/directories", listed.encode(), 0o644)
        for path in (
            "usr/lib/pikaci/pikaci-incus-run",
            "usr/lib/pikaci/pikaci-deadline",
            "usr/sbin/init",
        ):
            content = (guest_files() / Path(path).name).read_bytes()
            _add(archive, f"rootfs/{path}", content, 0o755)
        _add(archive, "metadata.yaml", _metadata(sources), 0o644)
    return image


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


def _metadata(sources: DebianSources) -> bytes:
    properties = {
        "os": "Debian",
        "release": sources.codename,
        "architecture": os.uname().machine,
        "description": f"pikaci guest, Debian {sources.codename}",
        contract().image_property: str(contract().version),
        RECIPE_PROPERTY: recipe(sources),
    }
    # JSON, which is YAML too.
    return msgspec.json.encode(
        {
            "architecture": os.uname().machine,
            "creation_date": CREATION_DATE,
            "properties": properties,
        }
    )
