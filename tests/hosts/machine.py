"""A machine with an Incus daemon of its own, in namespaces of this one.

It has its own network, mounts and processes. Its first process ends when the test's does, however
that ends, and with it the daemon, the guests and the mounts, as in a power cut.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.private_daemon import LIBEXEC

SECS = 600  # three machines on one are slow

# Its shell also reaps what the daemon's helpers leave: it is the first process of its namespace.
# A new sysfs shows the machine's own network, but has no cgroups.
_FIRST = """\
mount -t proc proc /proc
mkdir -p "$1" && mount --rbind /sys/fs/cgroup "$1"
mount -t sysfs sysfs /sys && mount --move "$1" /sys/fs/cgroup
ip link set lo up
echo up
cat"""  # until our end of its stdin is closed
NAMESPACES = ("--mount", "--pid", "--net")


def run(*argv: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> str:
    """What the command prints; it must succeed."""
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, timeout=SECS)
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr.decode()}")
    return done.stdout.decode()


class Bridge:
    """A network of machines, which reaches nothing else."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self._ports = 0
        _wait_for_namespace(self._process.pid, "net")
        self._run("ip", "link", "add", "br0", "type", "bridge")
        self._run("ip", "link", "set", "br0", "up")

    def connect(self, pid: int, address: str) -> None:
        """Give the machine of this process an interface with this address."""
        self._ports += 1
        port = f"port{self._ports}"
        peer = ("peer", "name", "eth0", "netns", str(pid))
        self._run("ip", "link", "add", port, "type", "veth", *peer)
        self._run("ip", "link", "set", port, "master", "br0", "up")
        inside = ("nsenter", f"--target={pid}", "--net", "ip")
        run(*inside, "address", "add", f"{address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """The network is gone with its process."""
        self._process.kill()
        self._process.wait(SECS)

    def _run(self, *argv: str) -> None:
        run("nsenter", f"--target={self._process.pid}", "--net", *argv)


@dataclass
class Machine:
    """A machine on a bridge. `directory` is the daemon's; the test reaches its socket by path."""

    name: str
    address: str
    base: Path
    bridge: Bridge
    _pid: int = 0
    _holder: subprocess.Popen[bytes] | None = None
    _daemon: subprocess.Popen[bytes] | None = None
    _stopped: list[int] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.base / "incus"

    @property
    def env(self) -> dict[str, str]:
        """The environment of a client that talks to this machine's daemon."""
        ours = {"INCUS_DIR": str(self.directory), "INCUS_CONF": str(self.base / "conf")}
        return {**os.environ, **ours}

    def power_on(self) -> None:
        """The machine without its daemon."""
        self.base.mkdir(exist_ok=True, mode=0o711)
        self.directory.mkdir(exist_ok=True, mode=0o711)
        unshare = ("unshare", *NAMESPACES, "--fork", "--kill-child")
        first = ("sh", "-c", _FIRST, "first", str(self.base / "cgroup"))
        self._holder = subprocess.Popen(
            [*unshare, *first],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        (self._pid,) = _children(self._holder.pid)
        self.bridge.connect(self._pid, self.address)

    def start(self, *, wait: bool = True) -> None:
        """Start the daemon, over whatever it left; return when it answers."""
        daemon = (f"{LIBEXEC}/incusd", "--logfile", str(self.base / "incusd.log"))
        self._daemon = subprocess.Popen(
            [*self._inside(), *daemon],
            env={
                "PATH": f"{LIBEXEC}:/usr/sbin:/usr/bin:/sbin:/bin",
                "INCUS_DIR": str(self.directory),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return when the daemon answers."""
        run(f"{LIBEXEC}/incusd", "waitready", "--timeout", str(SECS), env=self.env)

    def kill(self) -> None:
        """Kill the daemon alone: its guests go on."""
        assert self._daemon is not None
        for pid in _children(self._daemon.pid):
            os.kill(pid, signal.SIGKILL)
        self._daemon.wait(SECS)

    def power_off(self) -> None:
        """Everything on the machine dies at once: the daemon, the guests, the mounts."""
        if self._holder is None:
            return
        os.kill(self._pid, signal.SIGKILL)
        if self._daemon is not None:
            self._daemon.kill()  # it reaps the daemon, and the machine's end waits for that
            self._daemon.wait(SECS)
        self._holder.wait(SECS)
        self._holder = None

    def stop(self) -> None:
        """The daemon hangs: it keeps its connections, and answers nothing."""
        assert self._daemon is not None
        self._stopped = _children(self._daemon.pid)
        for pid in self._stopped:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """The daemon continues after `stop`."""
        assert self._daemon is not None
        # nsenter stops itself with its child.
        for pid in (*self._stopped, self._daemon.pid):
            os.kill(pid, signal.SIGCONT)
        self._stopped = []

    def run(self, *argv: str, stdin: bytes = b"") -> str:
        """What a command on the machine prints."""
        return run(*self._inside(), *argv, env=self.env, stdin=stdin)

    def incus(self, *args: str, stdin: bytes = b"") -> str:
        """What an incus command to this machine's daemon prints."""
        return run("incus", *args, env=self.env, stdin=stdin)

    def _inside(self) -> Sequence[str]:
        return ("nsenter", f"--target={self._pid}", *NAMESPACES)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _wait_for_namespace(pid: int, kind: str) -> None:
    ours = os.readlink(f"/proc/self/ns/{kind}")
    while os.readlink(f"/proc/{pid}/ns/{kind}") == ours:
        os.sched_yield()
