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
    assert "disk is full; set disk" in ended.result["hint"]


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


LIMIT = 100_000
KEPT = -(-LIMIT // 1024) * 1024  # the kernel's unit
LAST_LINE = b"\n[pikaci] the log reached its limit of %d bytes; the rest is not kept\n" % LIMIT


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_a_log_past_its_limit_is_cut_off_and_says_so(guest: Guest, root: bool) -> None:
    """To the byte; the job goes on, with no signal and no wait, to its own verdict."""
    ended = guest.run(
        "head -c 30000000 /dev/zero | tr '\\0' y; echo late >/artifacts/late; exit 6",
        root=root,
        send={"PIKACI_INCUS_LOG_BYTES": str(LIMIT)},
    )

    assert ended.log == ended.stdout
    assert ended.log.endswith(LAST_LINE)
    assert KEPT == len(ended.log.removesuffix(LAST_LINE))
    assert set(ended.output.removesuffix(LAST_LINE)) == set(b"y")
    assert ended.result is not None
    assert (6, "failed", True) == (ended.code, ended.result["status"], ended.result["log_complete"])
    assert len(ended.log) == ended.result["log_bytes"]
    assert guest.path("/artifacts/late").exists()


def test_a_job_that_prints_for_ever_is_timed_out(guest: Guest) -> None:
    """As any other; what it left running too is dead."""
    ended = guest.run(
        "setsid yes & yes", timeout_secs=1, send={"PIKACI_INCUS_LOG_BYTES": str(LIMIT)}
    )

    assert ended.result is not None
    assert (124, "timed_out") == (ended.code, ended.result["status"])
    assert KEPT + len(LAST_LINE) == len(ended.log)


@pytest.mark.parametrize(("more", "cut"), [(0, False), (1, True)])
def test_only_what_is_past_the_limit_is_cut_off(guest: Guest, more: int, cut: bool) -> None:
    """A log of just the limit has nothing cut off."""
    head = len("[pikaci] incus guest booted at 2026-01-01T00:00:00+00:00\n")
    ended = guest.run(
        f"head -c {20480 - head + more} /dev/zero", send={"PIKACI_INCUS_LOG_BYTES": "20480"}
    )

    assert ended.code == 0
    assert cut == (b"[pikaci] the log reached its limit of 20480 bytes" in ended.log)


def test_lines_under_a_limit_come_as_they_are_printed(guest: Guest) -> None:
    """What keeps the limit does not hold them back until there are more."""
    guest.shell("mkfifo -m 0666 /artifacts/go")
    process = guest.start(
        "echo one; read -r </artifacts/go; echo two", send={"PIKACI_INCUS_LOG_BYTES": str(LIMIT)}
    )
    assert process.stdout is not None
    first = process.stdout.readline(), process.stdout.readline()
    guest.shell("echo >/artifacts/go")
    ended = guest.ended(process)

    assert b"one\n" == first[1]
    assert b"two\n" == ended.stdout
    assert 0 == ended.code


def test_a_full_disk_under_a_limit_is_told_as_one(small_disk: Guest) -> None:
    """And not as a limit that was reached."""
    ended = small_disk.run(
        "head -c 20000000 /dev/zero; exit 6", send={"PIKACI_INCUS_LOG_BYTES": str(200 << 20)}
    )

    assert ended.result is not None
    assert (6, False) == (ended.code, ended.result["log_complete"])
    assert b"limit" not in ended.log
