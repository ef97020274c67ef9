"""What a job keeps in memory ends with it, so that it cannot take the memory of its own runner."""

from __future__ import annotations

import os

import pytest

from .guest import Guest

BOTH = pytest.mark.parametrize("root", [False, True], ids=["user", "root"])


@BOTH
def test_shared_memory_is_the_jobs_own(guest: Guest, root: bool) -> None:
    """Whatever a job leaves in /dev/shm is gone, and it may use half of the memory for it."""
    ended = guest.run(
        "echo x >/dev/shm/pikaci-test; stat -c %a /dev/shm; stat -f -c '%b %S' /dev/shm;"
        " grep MemTotal: /proc/meminfo",
        root=root,
    )

    mode, size, total = ended.output.decode().splitlines()
    blocks, block_bytes = map(int, size.split())
    half = int(total.split()[1]) * 1024 // 2
    assert "1777" == mode
    assert abs(half - blocks * block_bytes) < 2 * block_bytes
    assert not guest.path("/dev/shm/pikaci-test").exists()


def test_shared_memory_in_a_guest_without_the_directory(guest: Guest) -> None:
    """The runner makes it."""
    guest.shell("mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; ln -s /proc/self/fd /dev")
    ended = guest.run("echo x >/dev/shm/x; cat /dev/shm/x")

    assert (0, b"x\n") == (ended.code, ended.output)


@BOTH
def test_system_v_memory_is_the_jobs_own(guest: Guest, root: bool) -> None:
    """The job sees no segment of the guest's, and leaves none."""
    size = 8192 + os.getpid()  # by which this one is known: all tests share the host's segments
    guest.shell(f"ipcmk -M {size} >/opt/made")
    before = guest.call("-c", "ipcs -m", program="bash")[1].decode().split()
    ended = guest.run(f"ipcs -m; ipcmk -M {size}", root=root)
    after = guest.call("-c", "ipcs -m", program="bash")[1].decode().split()
    guest.shell("ipcrm -m $(grep -o '[0-9]*$' /opt/made)")

    assert str(size) not in ended.output.decode().split()
    assert [1, 1] == [before.count(str(size)), after.count(str(size))]


def test_the_job_is_killed_before_its_runner(guest: Guest) -> None:
    """Then its init, with which its memory file systems end; all that is outside comes last."""
    ended = guest.run("cat /proc/self/oom_score_adj /proc/1/oom_score_adj")

    job, init = map(int, ended.output.split())
    outside = int(guest.path("/proc/1/oom_score_adj").read_text())
    assert job > init > outside
