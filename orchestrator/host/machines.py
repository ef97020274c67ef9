"""What virtual machines need on the daemon's machine, told before a job needs it.

Incus looks for the kernel's devices and for QEMU once, when it starts. It misses everything else
only when the first VM is created or started. Debian installs none of that along with Incus if it is
told to leave out recommended packages.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import trio

from orchestrator.host.row import Row
from orchestrator.incus import Deadline, Incus

SUBJECT = "VMs"
CALL_SECS = 60.0
_AGAIN = "and restart Incus, which looks for it when it starts"
_DEVICES = {
    "dev/kvm": "modprobe kvm_intel (or kvm_amd); it may be off in the firmware of this machine, or"
    f" in the host that it runs on; {_AGAIN}",
    "dev/vhost-vsock": f"modprobe vhost_vsock, {_AGAIN}",
}
# Where Incus looks, apart from its PATH (6.0.4: internal/server/device/device_utils_disk.go, and
# internal/server/instance/drivers/edk2/driver_edk2.go).
_BESIDES = {"virtiofsd": ("usr/libexec", "usr/lib", "usr/lib/qemu")}
_FIRMWARE = {
    "x86_64": ("usr/share/OVMF", "usr/share/qemu", "usr/share/edk2", "opt/incus/share/qemu"),
    "aarch64": ("usr/share/AAVMF", "usr/share/edk2", "opt/incus/share/qemu"),
}
_FIRMWARE_PACKAGES = {"x86_64": "ovmf", "aarch64": "qemu-efi-aarch64"}


class _Environment(msgspec.Struct, frozen=True):
    driver: str = ""


class _Server(msgspec.Struct):
    environment: _Environment = _Environment()


async def makes_machines(incus: Incus) -> bool:
    """Whether this Incus can create VMs at all."""
    server = await incus.query("/1.0", _Server, deadline=Deadline(CALL_SECS), in_project=False)
    return "qemu" in server.environment.driver.split()


async def machine_needs(
    incus: Incus, pool_driver: str, *, wanted: bool, root: Path = Path("/")
) -> AsyncIterator[Row]:
    """A row for each thing that VMs lack; one that is ok if there is none.

    No row at all where Incus makes no VMs and nobody `wanted` one. `pool_driver` is that of the
    storage pool; `root` is where this machine's files are. Raises an `IncusError` if Incus cannot
    be asked.
    """
    makes = await makes_machines(incus)
    if not makes and not wanted:
        return
    lacking = []
    if incus.host.is_local:
        lacking = await trio.to_thread.run_sync(_lacking, root, pool_driver == "btrfs")
    if not makes and not lacking:
        lacking = [("Incus cannot make them", f"its log says why (journalctl -u incus); {_AGAIN}")]
    for found, remedy in lacking:
        yield Row("missing" if wanted else "warning", SUBJECT, found, remedy)
    if not lacking:
        yield Row("ok", SUBJECT, "Incus makes them with QEMU, and lacks nothing for it")


def _lacking(root: Path, on_btrfs: bool) -> list[tuple[str, str]]:
    """What is missing, each with what to type; reads files, and asks QEMU."""
    machine = platform.machine()
    qemu = f"qemu-system-{machine}"
    lacking = [
        (f"there is no /{path}", remedy)
        for path, remedy in _DEVICES.items()
        if not (root / path).exists()
    ]
    commands = {
        qemu: ("runs them", f"apt-get install incus, {_AGAIN}"),
        "qemu-img": ("unpacks their images", "apt-get install qemu-utils"),
        "virtiofsd": ("shares the host's directories with them", "apt-get install virtiofsd"),
    }
    if on_btrfs:  # Incus turns off copy-on-write for the disk's file
        commands["chattr"] = ("sets up their disks on btrfs", "apt-get install e2fsprogs")
    for name, (purpose, remedy) in commands.items():
        if _find(root, name) is None:
            lacking.append((f"the command {name} is not installed; it {purpose}", remedy))
    if not any((root / path).is_dir() for path in _FIRMWARE.get(machine, ())):
        package = _FIRMWARE_PACKAGES.get(machine, "ovmf")
        lacking.append(("there is no firmware for them", f"apt-get install {package}"))
    program = _find(root, qemu)
    if program is not None and not _has_spice(program):
        found = f"{qemu} lacks spice, which Incus starts every VM with"
        lacking.append((found, "apt-get install qemu-system-modules-spice"))
    return lacking


def _find(root: Path, name: str) -> str | None:
    places = [
        *(os.environ.get("PATH", "").split(os.pathsep) if root == Path("/") else ()),
        *(str(root / path) for path in ("usr/bin", "usr/sbin", *_BESIDES.get(name, ()))),
    ]
    return shutil.which(name, path=os.pathsep.join(places))


def _has_spice(program: str) -> bool:
    """Ask QEMU itself: some builds have it in a module, others within."""
    try:
        done = subprocess.run(
            [program, "-spice", "help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CALL_SECS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True  # nobody knows; the first VM shows it
    # The exit code is 1 in QEMU 10 even when it helps.
    return b"no option group" not in done.stderr
