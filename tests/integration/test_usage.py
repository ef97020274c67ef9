"""What a job used, on the real Incus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.usage_samples import read_samples
from states.outcome import Verdict
from states.spec import JobSpec
from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until
from tests.integration.running import Runs

pytestmark = pytest.mark.incus

MIB = 1 << 20
# Where the runner's meter writes, once it has begun.
SAMPLES = "/var/lib/pikaci-incus-run/guest.usage"
# Some seconds of one CPU, and memory for a time that has a sample in it.
WORKS = (
    'python3 -c \'import time; x = b"x" * (150 << 20); t = time.monotonic() + 5\n'
    "while time.monotonic() < t: pass'"
)
HOSTILE = """
(sleep 300 & sleep 300 & sleep 300 & wait) & sleep 3
echo '1 2 3 4 5 6' >/artifacts/guest.usage
rm -rf /artifacts/guest.usage; ln -s /etc/passwd /artifacts/guest.usage
umount /var/lib/pikaci-incus-run && rm -rf /var/lib/pikaci-incus-run/{guest.usage,cgroup}
exit 3
"""


async def test_what_a_job_used(runs: Runs) -> None:
    """Its own guest's alone: the CPU, the memory, and both over time."""
    spec = JobSpec(command=WORKS, memory="512MiB", cpus=1)
    jobs = await runs.run({"busy": spec, "idle": JobSpec(command="sleep 5", memory="512MiB")})
    busy, idle = jobs["busy"].usage, jobs["idle"].usage

    assert busy is not None and idle is not None
    assert busy.cpu_ms is not None and idle.cpu_ms is not None
    assert busy.elapsed_ms is not None and busy.elapsed_ms >= 5000
    assert busy.cpu_ms > idle.cpu_ms > 0
    if busy.memory_peak_bytes is not None and idle.memory_peak_bytes is not None:
        assert 512 * MIB >= busy.memory_peak_bytes > 150 * MIB > idle.memory_peak_bytes > 0
    artifacts = jobs["busy"].artifacts
    assert artifacts is not None
    samples = read_samples(Path(artifacts) / "guest.log")
    assert len(samples) >= 2
    assert all(0 <= one.ms <= busy.elapsed_ms for one in samples)
    assert all((one.cpu_ms or 0) <= busy.cpu_ms for one in samples)
    memory = [one.memory_bytes for one in samples if one.memory_bytes is not None]
    assert not memory or 512 * MIB >= max(memory) > 150 * MIB


async def test_what_a_job_used_until_it_was_cancelled(runs: Runs) -> None:
    """Its runner counts to the end, and takes samples on the way."""
    specs = {
        "stopped": JobSpec(command=f"{WORKS}; sleep 600", memory="512MiB", cpus=1),
        "fails": JobSpec(command="sleep 8; exit 1"),
    }
    job = (await runs.run(specs, fail_fast=True))["stopped"]

    assert Verdict.CANCELLED is job.verdict
    assert job.usage is not None and job.usage.elapsed_ms is not None
    assert job.usage.cpu_ms is not None and job.usage.cpu_ms > 1000
    assert 4000 < job.usage.elapsed_ms < 600_000
    assert job.artifacts is not None
    assert read_samples(Path(job.artifacts) / "guest.log")


@pytest.mark.parametrize("root", [False, True])
async def test_a_hostile_job_s_usage_costs_nothing_else(runs: Runs, root: bool) -> None:
    """Its verdict is its own, whatever it does to the runner's files; nothing is followed."""
    job = await runs.run_one(JobSpec(command=HOSTILE, run_as_root=root, retries=0))

    assert (Verdict.FAILED, 3) == (job.verdict, job.exit_code)
    assert job.artifacts is not None
    path = Path(job.artifacts) / "guest.usage"
    assert not path.is_symlink() and b"root:" not in (path.read_bytes() if path.exists() else b"")


def test_a_job_of_a_killed_pikaci_has_its_usage(pikaci: Command) -> None:
    """It is in the guest, with the result, until somebody resumes the job."""
    running = pikaci.run_until("running", "run", "--", f"{AT_THE_GATE}; echo two")
    wait_until(lambda: pikaci.in_guest("test", "-s", SAMPLES))  # of a shorter job nothing is known
    running.kill()
    running.communicate(timeout=SECS)
    pikaci.open_gate()
    resumed = pikaci("resume")
    (job,) = json.loads(pikaci("status", "--output", "json").stdout)["jobs"]

    assert 0 == resumed.returncode
    assert job["usage"]["cpu_ms"] > 0
    assert "used: CPU" in pikaci("status", job["id"]).stdout
    assert "used: CPU" in pikaci("trace", job["id"]).stdout
