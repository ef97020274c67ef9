"""Jobs on a real cluster of three members."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from states.outcome import Verdict
from states.spec import Deadlines, JobSpec
from tests.hosts.cluster import Cluster
from tests.hosts.cluster_runs import ClusterRuns, Seen

pytestmark = [pytest.mark.incus, pytest.mark.hosts]

# Long enough that all three run at once.
ONCE = JobSpec(
    command="cat hello.txt; sleep 20",
    cpus=1,
    deadlines=Deadlines(daemon_secs=20),
)


async def test_a_member_that_dies_loses_attempts_and_no_jobs(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a job, and a volume; that of the dead one passes elsewhere. All is swept."""
    runs = ClusterRuns(cluster, tmp_path, monkeypatch, shared=False)

    async def trouble(seen: Seen) -> None:
        await seen.until(lambda: len(seen.running()) == 3)
        assert {"m1", "m2", "m3"} == set(seen.running())
        await trio.to_thread.run_sync(cluster["m3"].power_off)

    jobs = await runs.run(dict.fromkeys("abc", ONCE), beside=trouble)
    left = runs.open_leases()
    await trio.to_thread.run_sync(cluster.bring_back, "m3")
    await runs.sweep()

    assert {Verdict.PASSED} == {job.verdict for job in jobs.values()}
    assert [1] == [job.losses for job in jobs.values() if job.losses]
    assert {"m1", "m2"} == {job.member for job in jobs.values()}
    assert ["m3"] == [member for _, member in left]
    assert ["m1", "m2", "m3"] == sorted(member for _, member in cluster.volumes())
    assert {1} == set(runs.verdicts().values())
    assert [] == runs.open_leases()
    assert [] == cluster.instances()


async def test_an_evacuated_job_begins_anew_elsewhere(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guest is neither moved nor started again."""
    runs = ClusterRuns(cluster, tmp_path, monkeypatch)

    async def trouble(seen: Seen) -> None:
        await seen.until(lambda: len(seen.running()) == 3)
        await trio.to_thread.run_sync(cluster.ask, "evacuate", "m3")

    jobs = await runs.run(dict.fromkeys("abc", ONCE), beside=trouble)
    left = cluster.instances()
    await trio.to_thread.run_sync(cluster.ask, "restore", "m3")

    assert {Verdict.PASSED} == {job.verdict for job in jobs.values()}
    assert [1] == [job.losses for job in jobs.values() if job.losses]
    assert any("evacuated" in message for message in runs.losses())
    assert [] == left
    assert [] == runs.open_leases()


async def test_jobs_wait_for_a_quorum(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs on the member that is left, and one that has no member yet."""
    runs = ClusterRuns(cluster, tmp_path, monkeypatch)
    spec = JobSpec(command="cat hello.txt; sleep 5", cpus=1)

    async def trouble(seen: Seen) -> None:
        await seen.until(lambda: bool(seen.running()))
        assert ["m1"] == list(seen.running())
        for name in ("m2", "m3"):
            await trio.to_thread.run_sync(cluster[name].power_off)
        await trio.sleep(30)
        for name in ("m2", "m3"):
            await trio.to_thread.run_sync(cluster.bring_back, name)

    jobs = await runs.run(dict.fromkeys("ab", spec), beside=trouble, parallel=1)

    assert [(Verdict.PASSED, 0)] * 2 == [(job.verdict, job.losses) for job in jobs.values()]
    assert {1} == set(runs.verdicts().values())
    assert [] == cluster.instances()
