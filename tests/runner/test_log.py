"""Every byte of the log, in the file and over the exec, also when the disk is full."""

from __future__ import annotations

import hashlib

import pytest

from .guest import Guest


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_any_bytes(guest: Guest, root: bool) -> None:
    """All 256 byte values pass unchanged, without a line break at the end."""
    data = bytes(range(256)) * 3
    guest.path("/workspace/snapshot/data").write_bytes(data)
    ended = guest.run("cat data", root=root)

    assert data == ended.output
    assert ended.log == ended.stdout


def test_many_bytes(guest: Guest) -> None:
    """20 MB arrive whole, in both places."""
    ended = guest.run("head -c 20000000 /dev/urandom | tee /home/pikaci/copy")

    copy = hashlib.sha256(guest.path("/home/pikaci/copy").read_bytes())
    assert copy.digest() == hashlib.sha256(ended.output).digest()
    assert ended.log == ended.stdout
    assert ended.result is not None
    assert len(ended.log) == ended.result["log_bytes"]


def test_order_of_both_streams(guest: Guest) -> None:
    """stdout and stderr are one stream: lines stay in the order in which they were written."""
    ended = guest.run("for i in {1..2000}; do echo out $i; echo err $i >&2; done")

    expected = "".join(f"out {i}\nerr {i}\n" for i in range(1, 2001))
    assert expected == ended.output.decode()
    assert ended.log == ended.stdout


def test_closed_streams(guest: Guest) -> None:
    """A job that closes its streams early still runs to its end."""
    ended = guest.run("echo begun; exec >&- 2>&-; sleep 0.3; exit 6")

    assert (6, b"begun\n") == (ended.code, ended.output)


@pytest.fixture
def small_disk(guest: Guest) -> Guest:
    """A guest with a disk of 8 MB."""
    guest.shell("mount -o remount,size=8m /")
    return guest


def test_disk_that_the_job_filled(small_disk: Guest) -> None:
    """A job that fills the disk keeps its own exit code, in a result that is whole."""
    ended = small_disk.run("cat /dev/zero >/artifacts/fill 2>/dev/null || :; exit 6")

    assert ended.result is not None
    assert (6, "failed") == (ended.code, ended.result["status"])
    assert ended.result["log_complete"] is True
    assert "disk is full; the key disk" in ended.result["hint"]


def test_disk_that_the_log_filled(small_disk: Guest) -> None:
    """A log that does not fit has a gap, and says so; the job is not hurt by it."""
    ended = small_disk.run("head -c 20000000 /dev/zero; exit 6")

    assert ended.result is not None
    assert (6, 6) == (ended.code, ended.result["exit_code"])
    assert ended.result["log_complete"] is False
    assert len(ended.log) == ended.result["log_bytes"] < 8 << 20


def test_disk_that_cannot_be_written(guest: Guest) -> None:
    """Where nothing can be written at all, a start fails at once, and nothing runs."""
    guest.shell("mount -t tmpfs -o ro tmpfs /var/lib")
    ended = guest.run("echo ran")

    assert (125, None) == (ended.code, ended.result)
    assert b"cannot write to /var/lib/pikaci-incus-run" in ended.stderr
