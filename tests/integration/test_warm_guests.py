"""Jobs in warm guests, on the real Incus."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from orchestrator import Capacity, Job, JobSpec, Orchestrator, Settings, WarmGuests
from orchestrator.journal import open_journal
from states import events as ev
from states.outcome import Outcome
from states.spec import Mount
from tests.calls import call
from tests.integration.command import Command, wait_until
from tests.integration.running import Runs, log_of, output_of

pytestmark = pytest.mark.incus

# What a job can see of its guest, but for names and times.
LOOK = """
cat hello.txt /data/deep/file
id -u; pwd; ls / /artifacts
touch /workspace/snapshot/new 2>/dev/null || echo read-only
touch /data/deep/new 2>/dev/null || echo read-only
cut -d' ' -f5,6 /proc/self/mountinfo | grep -e ^/workspace -e ^/data | sort
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true
ls /sys/class/net
cat /proc/self/uid_map | wc -l
env | cut -d= -f1 | sort
"""


@asynccontextmanager
async def keeping(runs: Runs) -> AsyncIterator[Orchestrator]:
    """A program that keeps one warm guest."""
    settings = Settings(
        runs.workspace,
        state_root=runs.root.path,
        capacity=Capacity(jobs=2),
        warm=WarmGuests(size=1),
    )
    async with Orchestrator.open(settings) as orchestrator:
        yield orchestrator


async def until_warm(orchestrator: Orchestrator) -> None:
    with trio.fail_after(60):
        while not orchestrator.statistics().warm:
            await trio.sleep(0.05)


async def both(orchestrator: Orchestrator, spec: JobSpec) -> tuple[Job, Job]:
    """The job in a guest that it makes, and in a warm one."""
    cold = await orchestrator.submit_and_wait(spec)
    await until_warm(orchestrator)
    warm = await orchestrator.submit_and_wait(spec)
    assert (False, True) == (cold.warm_ms is not None, warm.warm_ms is not None)
    return cold, warm


@pytest.mark.parametrize("root", [False, True], ids=["pikaci", "root"])
async def test_a_job_sees_no_difference(runs: Runs, tmp_path: Path, root: bool) -> None:
    """Mounts, limits, network, variables: all as in a guest that was made for it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("deep\n")
    mounts = (Mount(source=str(tmp_path / "data"), path="/data/deep"),)
    spec = JobSpec(command=LOOK, mounts=mounts, run_as_root=root, env={"A": "b"})
    async with keeping(runs) as orchestrator:
        cold, warm = await both(orchestrator, spec)

    assert (Outcome.PASSED, Outcome.PASSED) == (cold.outcome, warm.outcome)
    assert output_of(cold) == output_of(warm)
    assert 2 == output_of(warm).count(b"read-only")
    assert cold.instance != warm.instance


async def test_it_takes_four_incus_calls(runs: Runs) -> None:
    """None creates or starts an instance, or looks for one with the same ids: that was done."""
    async with keeping(runs) as orchestrator:
        _, warm = await both(orchestrator, JobSpec(command="true"))
        calls = [
            entry.effect
            for _, entry in orchestrator.journal.entries(warm.id)
            if isinstance(entry, ev.Called)
        ]

    assert ["hot-plug", "run", "collect"] == [name for name in calls if name != "delete"]


async def test_what_is_left_of_a_job_is_never_another_s(runs: Runs) -> None:
    """Each has a guest of its own: no file, no process of an earlier job."""
    spec = JobSpec(
        command="ls /artifacts /cargo-home; touch /artifacts/mine /cargo-home/mine;"
        " (setsid sleep 1000 &); pgrep -c sleep"
    )
    async with keeping(runs) as orchestrator:
        jobs = list(await both(orchestrator, spec))
        for _ in range(2):
            await until_warm(orchestrator)
            jobs.append(await orchestrator.submit_and_wait(spec))

    assert 4 == len({job.instance for job in jobs})
    assert 1 == len({output_of(job) for job in jobs})
    assert b"mine" not in log_of(jobs[-1])


async def test_a_guest_that_has_stopped_is_of_no_use(runs: Runs) -> None:
    """The job makes its own, and its trace says why."""
    async with keeping(runs) as orchestrator:
        await orchestrator.submit_and_wait(JobSpec(command="true"))
        await until_warm(orchestrator)
        (guest,) = (one.instance for one in orchestrator.journal.open_leases() if not one.job)
        await call(runs.incus, "stop", "--quiet", "--force", runs.incus.name(guest))
        job = await orchestrator.submit_and_wait(JobSpec(command="true", retries=0))
        told = [
            entry.reason
            for _, entry in orchestrator.journal.entries(job.id)
            if isinstance(entry, ev.Restarted)
        ]

    assert (Outcome.PASSED, 2, None) == (job.outcome, job.attempt, job.warm_ms)
    assert [True] == ["its warm guest could not be used" in reason for reason in told]


async def test_nothing_is_left(runs: Runs) -> None:
    """At the end of the program no lease is open; the fixture looks for instances."""
    async with keeping(runs) as orchestrator:
        await orchestrator.submit_and_wait(JobSpec(command="true"))
        await until_warm(orchestrator)

    with open_journal(runs.root.journal) as journal:
        assert [] == journal.open_leases()


def test_a_service_keeps_one_and_its_next_start_deletes_what_a_dead_one_kept(
    pikaci: Command,
) -> None:
    """`pikaci run` gets it; one that nobody had when the service was killed is gone later."""
    pikaci.write('schema = 1\n[jobs.t]\ncommand = "echo fine"\n')
    service = pikaci.run_until("serving", "serve", "--warm", "1")

    def warm() -> list[str]:
        with open_journal(pikaci.root / "journal.sqlite3") as journal:
            return [one.instance for one in journal.open_leases() if not one.job]

    def can_be_claimed() -> bool:
        way = httpx.HTTPTransport(uds=str(pikaci.root / "service.sock"))
        with httpx.Client(transport=way, base_url="http://pikaci") as client:
            return client.get("/v1/statistics").json()["warm"] == 1

    for _ in range(2):
        assert 0 == pikaci("run").returncode
        wait_until(can_be_claimed)
    trace = json.loads(pikaci("trace", "--json").stdout)
    assert trace["warm_secs"] > 0

    service.kill()
    service.wait()
    (left,) = warm()
    again = pikaci.run_until("serving", "serve")
    wait_until(lambda: left not in pikaci.leases())
    again.send_signal(signal.SIGTERM)
    again.wait()
    assert [] == warm()


def test_what_serve_refuses(pikaci: Command) -> None:
    """With what to do instead."""
    refused = pikaci("serve", "--warm-secs", "60")

    assert 2 == refused.returncode
    assert "--warm-secs 60 needs --warm" in refused.stderr
