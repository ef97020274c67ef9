"""Makes the disk of a VM image from its file system, without mounts, loop devices, or a boot.

The disk has two partitions: one for EFI, with the kernel as one program, and the root file system,
which grows when the guest boots on a larger disk.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import tarfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import trio

from orchestrator.contract import guest_files
from orchestrator.image.initrd import initrd
from orchestrator.image.uki import unified_kernel
from orchestrator.incus.retries import stop_family
from states.errors import PikaciError

DISK_SECS = 900
# Each with the Debian package that has it.
TOOLS = {"mformat": "mtools", "mkfs.ext4": "e2fsprogs", "qemu-img": "qemu-utils", "sfdisk": "fdisk"}
LABEL = "pikaci"
MIB = 1 << 20
EFI_MIB = 48
# A panic or a failed start must not look like a job that takes long. The console costs little when
# it is quiet, and is all that a guest without an agent can say.
CMDLINE = "console=ttyS0 quiet panic=-1 systemd.show_status=error systemd.gpt_auto=no"

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_KERNEL, _STUB = "rootfs/boot/vmlinuz-*", "rootfs/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
_BUSYBOX = ("rootfs/usr/bin/busybox", "rootfs/bin/busybox")
_MODULES = "rootfs/usr/lib/modules/"
_EFI, _ROOT = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
_TABLE = f"""\
label: gpt
start=1MiB, size={EFI_MIB}MiB, type={_EFI}, name=efi
start={1 + EFI_MIB}MiB, size={{size}}MiB, type={_ROOT}, name=root
"""
# Without what the disk has elsewhere. The file system is a tenth larger than its files, to which
# its own tables come; it has no journal, as no guest is ever started again after a crash.
_ROOT_FS = """\
trap 'rm -rf {root}' EXIT # others may not be able to: its files have other owners
mkdir {root}
tar --extract --file {tar} --directory {root} --strip-components 1 --numeric-owner \
  --exclude 'rootfs/boot/*' --exclude 'rootfs/usr/lib/systemd/boot/*' rootfs
size=$(($(du --summarize --block-size 1M {root} | cut -f 1) * 11 / 10 + 64))
truncate --size "$(({start} + size + 1))M" {disk}
mkfs.ext4 -q -F -L {label} -m 0 -O ^has_journal \
  -E offset=$(({start} << 20)),lazy_itable_init=0,nodiscard -d {root} {disk} "${{size}}M"
echo "$size"
"""


def disk_inputs() -> bytes:
    """All that makes a disk of a file system, for a digest."""
    here = Path(__file__)
    code = (here.with_name(f"{name}.py").read_bytes() for name in ("disk", "initrd", "uki"))
    return b"".join([*code, (guest_files() / "initrd-init").read_bytes()])


def missing_tools() -> dict[str, str]:
    """The commands that this machine lacks to make a disk, each with its Debian package."""
    return {name: package for name, package in TOOLS.items() if not shutil.which(name, path=_PATH)}


async def make_disk(laid: Path, into: Path, *, say: Callable[[str], None]) -> list[Path]:
    """Make the image's two files in `into`, its metadata and its disk, from a laid image.

    Call it with a kind that is a machine. Needs root, or ids for users of its own (`/etc/subuid`).
    Raises `PikaciError` for a missing command, or one that fails.
    """
    if platform.machine() != "x86_64":
        raise PikaciError(
            f"a VM image is built on x86_64, and this machine is {platform.machine()}",
            resolution="build it elsewhere, and run: `pikaci image import METADATA DISK`",
        )
    if missing := missing_tools():
        raise PikaciError(
            f"commands that make a VM's disk are not installed: {', '.join(missing)}",
            resolution=f"apt-get install {' '.join(missing.values())}",
        )
    say("making the disk of the virtual machine")
    with trio.move_on_after(DISK_SECS) as scope:
        return await _make(laid, into)
    assert scope.cancelled_caught
    raise PikaciError(f"the disk was not made within {DISK_SECS} s")


async def _make(laid: Path, into: Path) -> list[Path]:
    metadata, program = into / "metadata.tar", into / "BOOTX64.EFI"
    await trio.to_thread.run_sync(_take, laid, metadata, program)
    disk, image = into / "disk", into / "disk.qcow2"
    places = {"root": into / "root", "tar": laid, "disk": disk}
    script = _ROOT_FS.format(
        label=LABEL,
        start=1 + EFI_MIB,
        **{name: shlex.quote(str(path)) for name, path in places.items()},
    )
    made = await _run([*_as_root(), "/bin/bash", "-euc", script])
    await _run(["sfdisk", "--quiet", str(disk)], stdin=_TABLE.format(size=int(made)).encode())
    efi = f"{disk}@@1M"
    # The firmware follows a file cluster by cluster: large ones are read sooner.
    size = ["-T", str(EFI_MIB * MIB // 512), "-h", "64", "-s", "32", "-c", "8"]
    await _run(["mformat", "-i", efi, *size, "-v", "EFI", "::"])
    await _run(["mmd", "-i", efi, "::/EFI", "::/EFI/BOOT"])
    await _run(["mcopy", "-i", efi, str(program), "::/EFI/BOOT/BOOTX64.EFI"])
    packed = ["-c", "-o", "compression_type=zstd"]  # as small as zlib, in a fraction of the time
    await _run(["qemu-img", "convert", *packed, "-O", "qcow2", str(disk), str(image)])
    disk.unlink()
    return [metadata, image]


def _take(laid: Path, metadata: Path, program: Path) -> None:
    """Take the image's metadata and its kernel out of the archive."""
    with tarfile.open(laid, "r:") as archive:
        members = {member.name: member for member in archive}

        def read(name: str) -> bytes:
            content = archive.extractfile(members[name])
            assert content is not None
            return content.read()

        def first(*patterns: str) -> str:
            found = (name for each in patterns for name in members if fnmatch(name, each))
            name = next(found, None)
            if name is None:
                raise PikaciError(f"the guest's file system has no {patterns[0]}")
            return name

        linux = first(_KERNEL)
        kernel = linux.partition("vmlinuz-")[2]
        init = (guest_files() / "initrd-init").read_bytes()
        disk = initrd(
            lambda name: read(f"{_MODULES}{kernel}/{name}"), kernel, read(first(*_BUSYBOX)), init
        )
        sections = [
            (".osrel", read("rootfs/usr/lib/os-release")),
            (".cmdline", CMDLINE.encode()),
            (".linux", read(linux)),
            (".initrd", disk),
        ]
        program.write_bytes(unified_kernel(read(first(_STUB)), sections))
        with tarfile.open(metadata, "w:") as ours:
            member = members["metadata.yaml"]
            ours.addfile(member, archive.extractfile(member))


def _as_root() -> list[str]:
    """What makes a command root of its own users, where it is not root already."""
    if os.geteuid() == 0:
        return []
    return ["unshare", "--map-auto", "--map-root-user", "--setuid=0", "--setgid=0", "--"]


async def _run(command: list[str], *, stdin: bytes = b"") -> str:
    done = await trio.run_process(
        command,
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        start_new_session=True,
        deliver_cancel=stop_family,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PATH": _PATH, "MTOOLS_SKIP_CHECK": "1"},
    )
    if done.returncode != 0:
        raise PikaciError(
            f"{next(word for word in command if not word.startswith('-'))} could not make the disk",
            details=done.stderr.decode("utf-8", "replace")[-3000:],
        )
    return done.stdout.decode()
