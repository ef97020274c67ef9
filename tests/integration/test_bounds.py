"""What a guest sends has a bound, and reaching it costs no verdict."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from orchestrator.attempt.log_file import HEADROOM_BYTES, limit_line
from states.outcome import Outcome
from states.spec import Deadlines, JobSpec
from tests.integration.running import Runs, artifact, log_of

pytestmark = pytest.mark.incus

IMAGE = "pikaci/dev"
MIB = 1 << 20
PRIVATE = "/var/lib/pikaci-incus-run"
# A root job can look behind what hides the runner's files from it.
TAKE_OVER = f"umount {PRIVATE}"


def used(job_artifacts: str | None) -> int:
    """The bytes that an attempt's directory takes on the disk."""
    assert job_artifacts is not None
    files = [path for path in Path(job_artifacts).rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files)


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
async def test_a_job_that_prints_for_ever_is_timed_out_and_its_log_is_cut_off(
    runs: Runs, root: bool
) -> None:
    """At the limit, by a line that says so; the host has what the guest has."""
    spec = JobSpec(
        command="yes & yes", image=IMAGE, run_as_root=root, timeout_secs=2, log_bytes="1MiB"
    )

    job = await runs.run_one(spec)

    log = log_of(job)
    assert (Outcome.TIMED_OUT, 124) == (job.outcome, job.exit_code)
    assert log.endswith(limit_line(MIB))
    assert MIB == len(log.removesuffix(limit_line(MIB)))
    assert ("the log was cut off at log_bytes = 1048576",) == job.warnings
    assert used(job.artifacts) < 2 * MIB


async def test_a_job_past_its_limit_has_its_own_verdict(runs: Runs) -> None:
    """It is neither stopped nor slowed down."""
    command = "head -c 300M /dev/zero; echo late >/artifacts/late; exit 7"
    spec = JobSpec(command=command, image=IMAGE, log_bytes="200kB", artifacts=("late",))

    job = await runs.run_one(spec)

    assert (Outcome.FAILED, 7) == (job.outcome, job.exit_code)
    assert b"late\n" == artifact(job, "late")
    assert log_of(job).endswith(limit_line(200_000))


async def test_a_log_that_a_root_job_made_huge_fills_no_disk(runs: Runs) -> None:
    """Neither as it is followed nor as it is collected; the result is believed as any root job's."""
    spec = JobSpec(
        command=f"echo begun; sleep 1; {TAKE_OVER}; truncate -s 1T {PRIVATE}/guest.log; exit 3",
        image=IMAGE,
        run_as_root=True,
        timeout_secs=4,
        log_bytes="1MiB",
        deadlines=Deadlines(grace_secs=1, run_margin_secs=2),
    )

    job = await runs.run_one(spec)

    log = log_of(job)
    assert (Outcome.FAILED, 3) == (job.outcome, job.exit_code)
    assert b"begun\n" in log
    assert log.endswith(limit_line(MIB))
    assert MIB + HEADROOM_BYTES + len(limit_line(MIB)) == len(log)
    assert any("guest.log is larger than" in warning for warning in job.warnings), job.warnings
    assert used(job.artifacts) < 3 * MIB


async def test_artifacts_of_every_kind_are_collected_or_refused_by_name(runs: Runs) -> None:
    """What would never end is not begun with."""
    command = """
cd /artifacts
truncate -s 1T huge
echo good >good
ln good linked
mkdir -p t/deps
echo b >t/deps/app-1
ln t/deps/app-1 t/app
echo blank >$'a\\u202fb'
echo latin >$'caf\\351.txt'
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")' || mkfifo socket
"""
    job = await runs.run_one(JobSpec(command=command, image=IMAGE, artifacts=("*", "none/*")))

    assert Outcome.PASSED == job.outcome
    assert b"good\n" == artifact(job, "good") == artifact(job, "linked")
    assert b"b\n" == artifact(job, "t/app") == artifact(job, "t/deps/app-1")
    assert b"blank\n" == artifact(job, "a\u202fb")
    manifest = json.loads((Path(job.artifacts or "") / "manifest.json").read_text())
    assert ["caf\\xe9.txt", "huge", "socket"] == sorted(one["path"] for one in manifest["refused"])
    assert {
        "not collected: huge is larger than 1 GiB",
        "not collected: caf\\xe9.txt has a name that is not UTF-8",
        "not collected: socket is not a regular file",
        "no file in /artifacts matches 'none/*'",
    } == set(job.warnings)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("| head -c 3000; sleep 1000", "did not end within 4 s"),
        ("| head -c 3000; exec tr '\\0' x </dev/zero", "cannot be read"),
        ("; exec cat /dev/zero", ""),
    ],
    ids=["stuck", "garbage", "endless"],
)
async def test_an_archive_that_does_not_end_costs_no_verdict(
    runs: Runs, end: str, words: str
) -> None:
    """The result comes first. (A root job can put its own program in place of tar.)"""
    command = f"""
mv /usr/bin/tar /usr/bin/real-tar
printf '%s\\n' '#!/bin/sh' {shlex.quote(f'/usr/bin/real-tar "$@" {end}')} >/usr/bin/tar
chmod +x /usr/bin/tar
echo one >/artifacts/one
exit 7
"""
    spec = JobSpec(
        command=command,
        image=IMAGE,
        run_as_root=True,
        artifacts=("one",),
        deadlines=Deadlines(collect_secs=4),
    )

    job = await runs.run_one(spec)

    assert (Outcome.FAILED, 7) == (job.outcome, job.exit_code)
    assert any(words in warning for warning in job.warnings) or not words, job.warnings
    assert used(job.artifacts) < 2 * MIB
