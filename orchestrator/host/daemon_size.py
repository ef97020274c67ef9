"""Whether the Incus daemon on this machine can go on starting processes.

Incus 6.0.4 never gives back 8 MiB of address space for some of what it does. It uses little of it,
but from about the size of memory and swap on, the kernel refuses it a fork: no guest starts any
more, until the daemon is restarted.
"""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.host.row import Row
from orchestrator.units import size

PROC = Path("/proc")
NAME = "incusd"
# From this part of memory and swap on there is a warning: it leaves time for some thousand guests.
LARGE = 0.7
_ALWAYS = "1"  # of vm.overcommit_memory: no fork is refused
_KIB = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)


def daemon_size(pid: int, proc: Path = PROC) -> Row | None:
    """A warning if the daemon with this process id has nearly outgrown this machine; else None.

    None, too, if that cannot be told. Blocks for a moment.
    """
    try:
        status = (proc / str(pid) / "status").read_text()
        memory = (proc / "meminfo").read_text()
        overcommit = (proc / "sys/vm/overcommit_memory").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return None if overcommit == _ALWAYS else judge(pid, status, memory)


def judge(pid: int, status: str, memory: str) -> Row | None:
    """The same, from the texts of `/proc/PID/status` and `/proc/meminfo`."""
    if not status.startswith(f"Name:\t{NAME}\n"):
        return None  # of another PID namespace: the number names another process here
    its, host = (dict(_KIB.findall(text)) for text in (status, memory))
    space = int(its.get("VmSize", 0)) << 10
    most = int(host.get("MemTotal", 0)) + int(host.get("SwapTotal", 0)) << 10
    if not most or space < LARGE * most:
        return None
    return Row(
        "warning",
        "daemon",
        f"{NAME} (pid {pid}) has {size(space)} of address space, {100 * space // most} % of this"
        " machine's memory and swap; from about 100 % on it starts no guest",
        "restart it (systemctl restart incus); guests and their jobs keep running",
    )
