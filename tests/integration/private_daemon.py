"""An Incus daemon of a test's own, to be killed, frozen and filled up."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.slim_image import export_slim_image

LIBEXEC = "/usr/libexec/incus"
POOL, PROJECT, IMAGE = "pikaci", "pikaci", "pikaci/dev"
SECS = 120


class PrivateDaemon:
    """incusd with its own directory, socket, pool (in a loop file) and slim copy of the guest image."""

    def __init__(self, base: Path) -> None:
        self.directory = base / "incus"
        self.directory.mkdir(mode=0o711)
        self.pool = self.directory / "storage-pools" / POOL
        self.env = {**os.environ, "INCUS_DIR": str(self.directory), "INCUS_CONF": str(base / "c")}
        self._log = base / "incusd.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon, over whatever a killed one left, and return when it answers."""
        self._process = subprocess.Popen(
            [f"{LIBEXEC}/incusd", "--logfile", str(self._log)],
            env={
                "PATH": f"{LIBEXEC}:/usr/sbin:/usr/bin:/sbin:/bin",
                "INCUS_DIR": str(self.directory),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait = [f"{LIBEXEC}/incusd", "waitready", "--timeout", str(SECS)]
        subprocess.run(wait, env=self.env, check=True, capture_output=True, timeout=SECS)

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon, not its guests, a signal; after KILL it is gone when this returns."""
        assert self._process is not None
        self._process.send_signal(number)
        if number is signal.SIGKILL:
            self._process.wait(SECS)

    def incus(self, *args: str, stdin: bytes = b"") -> str:
        """What an incus command to this daemon prints."""
        command = ["incus", *args]
        done = subprocess.run(
            command, env=self.env, input=stdin, check=True, capture_output=True, timeout=SECS
        )
        return done.stdout.decode()

    def set_up(self, image: Path, pool_size: str) -> None:
        """A pool, in a file with holes, the project, and the image, unpacked."""
        self.incus("storage", "create", POOL, "btrfs", f"size={pool_size}")
        count = ["btrfs", "quota", "enable", "--simple", str(self.pool)]  # as `pikaci setup` does
        subprocess.run(count, check=True, capture_output=True, timeout=SECS)
        features = ("--config=features.images=true", "--config=features.profiles=true")
        self.incus("project", "create", PROJECT, *features)
        self.incus("image", "import", "--project", PROJECT, str(image), f"--alias={IMAGE}")
        options = ("--quiet", "--project", PROJECT, "--no-profiles", "--storage", POOL)
        self.incus("create", *options, IMAGE, "first")
        self.incus("delete", "--project", PROJECT, "first")

    def instances(self) -> list[str]:
        """The names of all instances."""
        return self.incus("list", "--project", PROJECT, "-f", "csv", "-c", "n").split()

    def remove(self) -> None:
        """Undo all of it: guests, processes, mounts; the loop device goes with its mount.

        `storage delete` would wait for ten seconds where the daemon has a file of it open, as
        after a guest that it could not make.
        """
        try:
            for name in self.instances():
                self.incus("delete", "--force", "--project", PROJECT, name)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the daemon, and undo its mounts."""
        self.signal(signal.SIGKILL)
        for mount in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", mount], timeout=SECS)

    def _mounts(self) -> list[str]:
        paths = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return [path for path in paths if path.startswith(f"{self.directory}/")]


@contextmanager
def private_daemon(*, pool_size: str = "3GiB") -> Iterator[PrivateDaemon]:
    """A daemon that answers, with all that jobs need; nothing of it is left after the block."""
    # A guest's root is nobody here, and must get through; a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pikaci-incus-") as directory:
        base = Path(directory)
        base.chmod(0o711)
        image = export_slim_image(base)
        daemon = PrivateDaemon(base)
        daemon.start()
        try:
            daemon.set_up(image, pool_size)
            image.unlink()
            yield daemon
        finally:
            daemon.remove()


@pytest.fixture(scope="session")
def private_daemon_of_all() -> Iterator[PrivateDaemon]:
    """One for all tests: it takes seconds to make."""
    with private_daemon() as made:
        yield made


@pytest.fixture
def daemon(private_daemon_of_all: PrivateDaemon, monkeypatch: pytest.MonkeyPatch) -> PrivateDaemon:
    """A private daemon that answers; what this test runs, runs on it."""
    monkeypatch.setenv("INCUS_DIR", str(private_daemon_of_all.directory))
    monkeypatch.delenv("INCUS_SOCKET", raising=False)
    return private_daemon_of_all
