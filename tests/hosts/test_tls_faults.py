"""Guests that are frozen, and a pool that is full, on a host that is reached over TLS."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.command import AT_THE_GATE, Command, wait_until
from tests.integration.private_daemon import PROJECT
from tests.integration.tls_host import TlsHost

pytestmark = [pytest.mark.incus, pytest.mark.hosts]


@pytest.fixture
def pikaci(tls_pikaci: Command) -> Command:
    """pikaci, with the far host as the one that runs jobs."""
    return tls_pikaci


def freeze(far: TlsHost) -> str:
    """Freeze the only guest there, as somebody may who looks after that host."""
    (guest,) = far.daemon.instances()

    def is_frozen() -> bool:
        pause = ("incus", "pause", "--project", PROJECT, guest)
        return not subprocess.run(pause, env=far.daemon.env, capture_output=True).returncode

    # The kernel may not come to freeze all processes of a guest in the time that LXC gives it.
    wait_until(is_frozen)
    return guest


JOB = """
schema = 1

[jobs.job]
command = "echo last words; sleep 600"
timeout_secs = 1

[jobs.job.deadlines]
grace_secs = 1
run_margin_secs = 2
"""


def test_a_frozen_guest_is_no_test_failure(pikaci: Command, far_of_all: TlsHost) -> None:
    """The message says where it is, and what thaws it; nothing of it is left."""
    pikaci.write(JOB)
    started = pikaci.run_until("running", "run")
    wait_until(lambda: "last words" in pikaci("logs").stdout)

    freeze(far_of_all)
    out, _ = started.communicate()

    assert 4 == started.returncode
    assert "within 4 s: the instance on build is frozen" in out
    assert "-> `incus resume` on build unfreezes an instance" in out
    assert "last words" in pikaci("logs").stdout


def test_a_guest_that_is_thawed_goes_on(pikaci: Command, far_of_all: TlsHost) -> None:
    """Its log has no gap."""
    started = pikaci.run_until("running", "run", "--", f"seq 1000; {AT_THE_GATE}; seq 1001 2000")
    guest = freeze(far_of_all)
    there = ("--project", PROJECT, guest)
    time.sleep(5)

    far_of_all.daemon.incus("resume", *there)
    far_of_all.daemon.incus("exec", *there, "--", "touch", "/tmp/go")
    out, err = started.communicate()

    assert 0 == started.returncode, err
    assert [*map(str, range(1, 2001))] == out.splitlines()


@pytest.fixture
def filling(far_of_all: TlsHost) -> Iterator[Path]:
    """A file that fills that host's pool to its last byte."""
    path = far_of_all.daemon.pool / "filling"
    with path.open("wb", buffering=0) as file:
        # What earlier tests deleted is freed in the background.
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(1 << 20))
            time.sleep(1)
    yield path
    path.unlink(missing_ok=True)


def test_a_job_that_finds_the_pool_full_is_no_test_failure(pikaci: Command, filling: Path) -> None:
    """Whether its guest has no space there, or its tree: host, cause and remedy are named.

    When there is space again, the same job runs: a part of a tree is not taken for all of it.
    """
    small = pikaci("run", "--", "true")
    (pikaci.workspace / "tree").write_bytes(os.urandom(64 << 20))
    large = pikaci("run", "--", "stat -c %s tree")
    filling.unlink()
    again = pikaci("rerun")

    for done, verb in ((small, "launch"), (large, "storage")):
        assert 4 == done.returncode, done.stdout + done.stderr
        assert f"incus {verb} on build failed: the storage pool is full: " in done.stderr
        assert "`pikaci gc` frees space that pikaci uses" in done.stderr
        assert "`incus storage info pikaci` on build shows the pool" in done.stderr
    assert 0 == again.returncode, again.stdout + again.stderr
    assert f"| {64 << 20}\n" in again.stdout
