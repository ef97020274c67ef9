"""The guest in a running instance: its files, its processes, its one job."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import trio

from orchestrator.fake_incus.faults import Faults
from orchestrator.fake_incus.model import Device, Instance
from orchestrator.fake_incus.process import Process


@dataclass(frozen=True)
class GuestOutcome:
    """What a job did: its exit code, and the files that it left in `/artifacts`.

    `usage` is what the runner says that it used, None for a runner that says nothing of it;
    `samples` is the runner's file of that over time. `hint` is what the runner saw of why the
    command failed; `log_complete` is False if it could not write all of the log.
    """

    exit_code: int = 0
    artifacts: dict[str, bytes] = field(default_factory=dict)
    usage: object = None
    samples: bytes = b""
    hint: str = ""
    log_complete: bool = True


@dataclass(frozen=True)
class GuestCommand:
    """A job's command, as it reached the guest.

    `text` is the command; `environment` is what came on the exec's stdin, without the runner's own
    variables. `print` writes to the job's log, `read` and `write` access files of the guest and its
    mounts, `power_off` stops the guest and this job. `count` is told what the job has used, for one
    that does not end by itself.
    """

    instance: str
    text: str
    timeout_secs: int
    run_as_root: bool
    environment: dict[str, str]
    nonce: str
    print: Callable[[bytes], None]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    power_off: Callable[[], None]
    count: Callable[[object], None]


GuestScript = Callable[[GuestCommand], Awaitable[GuestOutcome]]


class Guest:
    """A guest, from `start` to `stop`. All its processes end with it."""

    def __init__(
        self,
        instance: Instance,
        devices: dict[str, Device],
        *,
        nursery: trio.Nursery,
        now: Callable[[], datetime],
        script: GuestScript,
        faults: Faults,
        power_off: Callable[[], None],
    ) -> None:
        self.instance = instance
        self.files = instance.files
        self.mounts: dict[str, Device] = {}
        self._plugged = trio.Event()
        self.plug(devices)
        self.now = now
        self.script = script
        self.faults = faults
        self.power_off = power_off
        self.takes_exec = instance.type == "container"  # a VM does once its agent runs
        self.listens = False  # the guest's end of the way out
        self.job: Process | None = None
        self.cancel_job: Callable[[], None] = lambda: None
        self._nursery = nursery
        self._processes: list[Process] = []

    def plug(self, devices: dict[str, Device]) -> None:
        """Mount the disks among the devices that have a source."""
        for device in devices.values():
            if device["type"] == "disk" and device.get("source") and device.get("path"):
                self.mounts[device["path"].rstrip("/")] = device
        self._plugged.set()
        self._plugged = trio.Event()

    async def wait_mounted(self, paths: Iterable[str]) -> None:
        """Return when all these paths are mount points."""
        while not self.mounts.keys() >= {*paths}:
            await self._plugged.wait()

    def read(self, path: str) -> bytes:
        """Read a file of the guest, or of the host below a mount; `OSError` if there is none."""
        mount = self._mount(path)
        if mount is not None:
            return Path(self.mounts[mount]["source"] + path[len(mount) :]).read_bytes()
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.files[path]

    def write(self, path: str, content: bytes) -> None:
        """Write a file of the guest; `OSError` below a mount, which is read-only."""
        if self._mount(path) is not None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        self.files[path] = content

    def remove(self, *paths: str) -> None:
        """Delete files and directories of the guest."""
        for path in paths:
            for known in [*self.files]:
                if known == path or known.startswith(f"{path}/"):
                    del self.files[known]

    def _mount(self, path: str) -> str | None:
        above = [mount for mount in self.mounts if path.startswith(f"{mount}/")]
        return max(above, key=len, default=None)

    def start(self, body: Callable[[Process], Awaitable[int]]) -> Process:
        """Start a process, which ends by itself, by `kill`, or with the guest."""
        process = Process()
        self._processes = [known for known in self._processes if known.exit_code is None]
        self._processes.append(process)
        self._nursery.start_soon(partial(process.run, body), name=self.instance.name)
        return process

    def kill(self) -> None:
        """Stop the instance: every process in it dies, without further output."""
        for process in self._processes:
            process.kill()
