"""The guest turns itself off when its lease is over, whatever became of its host and its job."""

from __future__ import annotations

import pytest

from .guest import Guest, wait_for

BOTH = pytest.mark.parametrize("root", [False, True], ids=["user", "root"])


def lease(secs: int) -> dict[str, str]:
    return {"PIKACI_INCUS_LEASE_SECS": str(secs)}


@BOTH
def test_guest_ends_under_a_job(guest: Guest, root: bool) -> None:
    """A job that runs on is no reason to go on; one that tries to, cannot kill what ends it."""
    stubborn = "trap '' TERM; kill -9 -1; while :; do sleep 1; done"
    job = guest.start(stubborn, root=root, send=lease(2))

    guest.wait_until_off()
    job.communicate()


def test_guest_ends_after_its_job(guest: Guest) -> None:
    """A job that is done, and that nobody collects, does not keep its guest."""
    ended = guest.run("exit 3", send=lease(2))

    assert 3 == ended.code
    guest.wait_until_off()


def test_guest_ends_without_its_supervisor(guest: Guest) -> None:
    """What ends the guest is not the supervisor's to take along."""
    job = guest.start("echo begun; sleep 300", send=lease(2))
    wait_for(job.stdout, b"begun\n")
    guest.shell(f"kill -9 {guest.pids_of('supervise')[0]}")

    guest.wait_until_off()
    job.communicate()


def test_lease_holds_nothing(guest: Guest) -> None:
    """It keeps no exec waiting, and not the lock: a follower ends when the job does."""
    ended = guest.run("echo done", send=lease(1000))
    code, stdout, _ = guest.call("follow", "0")

    assert (0, 0) == (ended.code, code)
    assert ended.stdout == stdout
    assert 1 == len(guest.pids_of("pikaci-lease"))


@BOTH
def test_lease_cannot_be_seen(guest: Guest, root: bool) -> None:
    """The job neither finds the process nor the setting."""
    ended = guest.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; env", root=root, send=lease(1000))

    assert b"pikaci-lease" not in ended.output
    assert b"PIKACI_INCUS_LEASE_SECS" not in ended.output


def test_no_lease(guest: Guest) -> None:
    """Without the setting, or with 0, nothing waits for an end."""
    guest.run("true", send=lease(0))

    assert set() == guest.processes()
