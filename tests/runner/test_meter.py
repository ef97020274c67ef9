"""What a job used: the kernel's counters, as the runner tells them."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from .guest import CONTRACT, DEADLINE_SECS, Ended, Guest, records, variables, wait_for

BOTH = pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
PRIVATE, USAGE = CONTRACT["private"], CONTRACT["usage"]
COUNTERS = f"{PRIVATE}/cgroup"
WAITS = "echo up; until [[ -e /tmp/go ]]; do sleep 0.05; done"
# In place of the kernel's files: those of a guest, by the version of its host's control groups. The
# second values are those of the end.
V2: dict[str, tuple[str, str]] = {
    "unified/cpu.stat": (
        "usage_usec 1000000\nuser_usec 1\nnr_periods 0\nnr_throttled 0\n",
        "usage_usec 3500999\nuser_usec 1\nnr_periods 100\nnr_throttled 80\n",
    ),
    "unified/memory.current": ("5000\n", "5000\n"),
    "unified/memory.stat": ("anon 1\nfile 3000\nshmem 500\n", "anon 1\nfile 3000\nshmem 500\n"),
    "unified/memory.peak": ("1000\n", "222298112\n"),
    "unified/pids.current": ("7\n", "7\n"),
    "unified/pids.peak": ("3\n", "38\n"),
    "unified/io.stat": (
        "7:0 rbytes=100 wbytes=200 rios=1 wios=1\n8:0 rbytes=100 wbytes=200 rios=1 wios=1\n",
        "7:0 rbytes=1100 wbytes=5200 rios=1 wios=1\n8:0 rbytes=1100 wbytes=200 rios=1 wios=1\n",
    ),
}
V1: dict[str, tuple[str, str]] = {
    "unified/cpu.stat": ("usage_usec 9\n", "usage_usec 99\n"),
    "cpuacct/cpuacct.usage": ("1000000000\n", "3500999999\n"),
    "cpu/cpu.stat": (
        "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
        "nr_periods 100\nnr_throttled 80\nthrottled_time 7\n",
    ),
    "memory/memory.usage_in_bytes": ("5000\n", "5000\n"),
    "memory/memory.stat": (
        "cache 1\nshmem 1\ntotal_cache 3000\ntotal_shmem 500\n",
        "cache 1\nshmem 1\ntotal_cache 3000\ntotal_shmem 500\n",
    ),
    "memory/memory.max_usage_in_bytes": ("1000\n", "222298112\n"),
    "pids/pids.current": ("7\n", "7\n"),
    "pids/pids.peak": ("3\n", "38\n"),
    "blkio/blkio.throttle.io_service_bytes_recursive": (
        "8:0 Read 100\n8:0 Write 200\n8:0 Total 300\nTotal 300\n",
        "8:0 Read 1100\n8:0 Write 5200\n8:0 Total 6300\nTotal 6300\n",
    ),
}
TOLD = {
    "cpu_ms": 2500,
    "cpu_periods": 100,
    "cpu_throttled": 80,
    "memory_peak_bytes": 222298112,
    "processes_peak": 38,
    "read_bytes": 1000,
    "written_bytes": 5000,
}


class Counted:
    """A guest whose control groups are files, which a test may change."""

    def __init__(self, guest: Guest, files: Mapping[str, tuple[str, str]]) -> None:
        self.guest = guest
        self.files = files
        for name, (first, _) in files.items():
            self._write(name, first)
        programs = guest.mkdir("/opt/bin")
        for name, case in (("mount", "-a"), ("umount", "-l")):
            script = (
                f'#!/bin/sh\n[ "$1" = {case} ] || exec /usr/bin/{name} "$@"\n: >/opt/{name}ed\n'
            )
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)

    def _write(self, name: str, text: str) -> None:
        path = self.guest.path(f"{COUNTERS}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _is_begun(self) -> bool:
        """Whether the meter has opened the files, and read the first values: it sleeps."""
        return self.guest.path("/opt/umounted").exists() and is_asleep(self.guest)

    def run(self, *, samples: int = 0) -> Ended:
        """A job that ends when the counters have their last values, after so many samples."""
        path = "/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        job = self.guest.popen(env={**variables(WAITS, 30, root=False), "PATH": path})
        assert job.stdin is not None
        job.stdin.write(records({"PIKACI_INCUS_NONCE": "n0nce"}))
        job.stdin.close()
        job.stdin = None
        wait_for(job.stdout, b"up\n")
        wait_until(self._is_begun)
        for name, (_, last) in self.files.items():
            self._write(name, last)
        kept = self.guest.path(f"{PRIVATE}/guest.usage")
        wait_until(lambda: not samples or lines_of(kept) >= samples)
        self.guest.path("/tmp/go").touch()
        return self.guest.ended(job)


def meter_of(guest: Guest) -> int:
    """The meter's PID: it is the supervisor's last fork, while its job runs."""
    return max(guest.pids_of("supervise"))


def is_asleep(guest: Guest) -> bool:
    """Whether the meter waits for nothing but its time."""
    process = guest.path(f"/proc/{meter_of(guest)}")
    children = (process / f"task/{process.name}/children").read_text()
    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    return (children, state) == ("", "S")


def test_a_job_that_is_over_at_once_is_not_measured(guest: Guest) -> None:
    """It waits for nothing, and no process of the runner's is left."""
    runner = guest.path(CONTRACT["runner"])
    runner.write_text(runner.read_text().replace("METER_SECS=0.2", "METER_SECS=1000"))
    ended = guest.run("exit 3")

    assert ended.result is not None
    assert ("failed", None) == (ended.result["status"], ended.result.get("usage"))
    wait_until(lambda: not guest.processes())


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(holds: object) -> None:
    end = time.monotonic() + DEADLINE_SECS
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_both_versions_of_control_groups(guest: Guest, files: dict[str, tuple[str, str]]) -> None:
    """What counts up is told from the job's start; of devices, the one with the most."""
    ended = Counted(guest, files).run()

    assert ended.result is not None
    assert ended.result["usage"].pop("elapsed_ms") >= 0
    assert TOLD == ended.result["usage"]


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_samples(guest: Guest, files: dict[str, tuple[str, str]]) -> None:
    """Time, CPU, memory without cached files, processes, bytes read and written."""
    Counted(guest, files).run(samples=1)

    line = guest.path(USAGE).read_text().splitlines()[0].split(" ")
    assert ["2500", "2500", "7", "1000", "5000"] == line[1:]
    assert 2000 <= int(line[0])
    assert 0o644 == guest.path(USAGE).stat().st_mode & 0o777


def test_samples_get_fewer(guest: Guest) -> None:
    """So that a long job has a bounded number of them."""
    runner = guest.path(CONTRACT["runner"])
    text = runner.read_text()
    runner.write_text(
        text.replace("SAMPLES=256", "SAMPLES=1").replace("_SECS=2 # between two", "_SECS=1 #")
    )
    Counted(guest, V2).run(samples=2)

    first, second = (
        int(line.split()[0]) for line in guest.path(USAGE).read_text().splitlines()[:2]
    )
    assert 1000 <= first
    assert 2000 <= second - first


def test_a_short_job_has_totals_alone(guest: Guest) -> None:
    """By the kernel's own counters, of whatever version."""
    job = guest.start(f"{WAITS}; head -c 20000000 /dev/zero | sha256sum")
    wait_for(job.stdout, b"up\n")
    wait_until(lambda: guest.path(f"{PRIVATE}/fstab").exists())
    wait_until(lambda: is_asleep(guest))
    guest.path("/tmp/go").touch()
    ended = guest.ended(job)

    assert ended.result is not None
    assert ended.result["usage"]["cpu_ms"] > 0
    assert all(type(value) is int and value >= 0 for value in ended.result["usage"].values())
    assert not guest.path(USAGE).exists()
    assert set() == guest.processes()


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"unified/cpu.stat": ("usage_usec\n", "")},
        {"unified/memory.peak": ("0\n", "0\n"), "unified/pids.peak": ("max\n", "max\n")},
        {"unified/memory.peak": ("9" * 30, "9" * 30), "unified/io.stat": ("x\n" * 5000, "")},
        {"blkio/blkio.throttle.io_service_bytes_recursive": ("Total 0\n", "Total 0\n")},
    ],
    ids=["none", "empty", "zero", "long", "no device"],
)
def test_what_cannot_be_read_is_not_told(guest: Guest, files: dict[str, tuple[str, str]]) -> None:
    """No counters, or none with a number that can be true: no usage, and the same verdict."""
    ended = Counted(guest, files).run()

    assert ended.result is not None
    assert ("passed", None) == (ended.result["status"], ended.result.get("usage"))


@BOTH
@pytest.mark.parametrize(
    "left", ["echo forged >{}", "mkdir -p {}/x", "mkfifo {}", "ln -s /etc/passwd {}"]
)
def test_what_a_job_leaves_under_the_name(guest: Guest, left: str, root: bool) -> None:
    """It is no sample; the name is the runner's, like those of the log and the result."""
    ended = guest.run(left.format(USAGE), root=root)

    assert ended.result is not None and "passed" == ended.result["status"]
    assert not guest.path(USAGE).exists() and not guest.path(USAGE).is_symlink()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_without_the_meter(guest: Guest, signum: signal.Signals) -> None:
    """A job whose meter is gone, or does not answer, ends as any other, without usage."""
    job = guest.start(f"{WAITS}; exit 3")
    wait_for(job.stdout, b"up\n")
    wait_until(lambda: guest.path(f"{PRIVATE}/fstab").exists() and is_asleep(guest))
    guest.shell(f"kill -{signum} {meter_of(guest)}; touch /tmp/go")
    ended = guest.ended(job)

    assert ended.result is not None
    assert ("failed", 3, None) == (ended.result["status"], ended.code, ended.result.get("usage"))
    assert b"up\n" == ended.output


def test_the_meter_ends_with_its_supervisor(guest: Guest) -> None:
    """However that ends."""
    job = guest.start("echo up; sleep 300")
    wait_for(job.stdout, b"up\n")
    guest.shell(f"kill -9 {min(guest.pids_of('supervise'))}")
    job.communicate(timeout=DEADLINE_SECS)

    wait_until(lambda: not guest.processes())


@BOTH
def test_no_control_group_stays_mounted(guest: Guest, root: bool) -> None:
    """Neither the job nor who comes after it sees the runner's."""
    ended = guest.run("cat /proc/self/mountinfo", root=root)

    assert PRIVATE.encode() + b"/cgroup" not in ended.output
    assert f"{PRIVATE}/cgroup" not in guest.path("/proc/1/mountinfo").read_text()
