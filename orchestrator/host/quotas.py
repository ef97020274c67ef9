"""How a btrfs pool on this machine counts its guests' disk space.

A guest shares its image's extents with all other guests. Full quotas count shared bytes: btrfs
looks at every sharer when a guest is deleted, so after a few hundred guests a create takes seconds.
Simple quotas (Linux 6.7) have no such fault; limits are enforced either way.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Literal

import trio

CALL_SECS = 120.0
Quotas = Literal["off", "simple", "full"]
_MODES: dict[str, Quotas] = {"squota": "simple", "qgroup": "full"}


def mount_of(pool: str) -> Path:
    """Where the local daemon mounts a pool."""
    return Path(os.environ.get("INCUS_DIR", "/var/lib/incus"), "storage-pools", pool)


def quotas_of(
    mount: Path, mounts: Path = Path("/proc/self/mounts"), sys: Path = Path("/sys/fs/btrfs")
) -> Quotas | None:
    """The quotas of the btrfs that is mounted there; None if there is none, or nobody can tell.

    Reads the kernel's files `mounts` and `sys`; blocks shortly.
    """
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
        device = next(row[0] for row in rows if row[1:3] == [str(mount), "btrfs"])
        (found,) = sys.glob(f"*/devices/{Path(device).name}")
        directory = found.parents[1] / "qgroups"
        if not directory.exists():
            return "off"
        mode = directory / "mode"  # missing before Linux 6.7, which has only full ones
        return _MODES.get(mode.read_text().strip()) if mode.exists() else "full"
    except (OSError, StopIteration, ValueError):
        return None


async def use_simple_quotas(pool: str) -> bool:
    """Turn on simple quotas if the pool has none; True if that is what this call did.

    Incus turns on full quotas itself when it sets the first limit, and that cannot be changed while
    there are guests. So where this fails (Linux before 6.7, a remote daemon, without root), the
    pool gets full ones.
    """
    mount = mount_of(pool)
    if await trio.to_thread.run_sync(quotas_of, mount) != "off":
        return False
    with contextlib.suppress(OSError), trio.move_on_after(CALL_SECS):
        await trio.run_process(
            ["btrfs", "quota", "enable", "--simple", str(mount)],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return await trio.to_thread.run_sync(quotas_of, mount) == "simple"
