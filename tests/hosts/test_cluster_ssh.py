"""Jobs on a real cluster that is reached over ssh, by one of its members."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from states.outcome import Verdict
from states.spec import Deadlines, JobSpec
from tests.hosts.cluster import Cluster
from tests.hosts.cluster_runs import ClusterRuns, Seen
from tests.hosts.far_host import FarHost, far_host

pytestmark = [pytest.mark.incus, pytest.mark.hosts]

# Long enough that all three run at once.
SPEC = JobSpec(command="cat hello.txt; sleep 20", cpus=1, deadlines=Deadlines(daemon_secs=20))


@pytest.fixture
def far(cluster: Cluster) -> Iterator[FarHost]:
    """A user of the first member, who may use Incus there."""
    there = cluster.members[0].directory / "unix.socket"
    shutil.chown(there, group="incus-admin")
    there.chmod(0o660)
    with far_host(incus_socket=str(there)) as made:
        yield made


@pytest.mark.parametrize("shared", [False, True])
async def test_jobs_run_where_their_directories_are(
    cluster: Cluster, far: FarHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """On the member that pikaci logs in to; on all, if they share a directory that it may write."""
    if shared:
        shutil.chown(cluster.shared, user=far.user)
    runs = ClusterRuns(cluster, tmp_path, monkeypatch, shared=shared, far=far)
    running: set[str] = set()

    async def look(seen: Seen) -> None:
        await seen.until(lambda: sum(seen.running().values()) + seen.ended() >= 3)
        running.update(seen.running())

    jobs = await runs.run(dict.fromkeys("abc", SPEC), beside=look)

    assert {Verdict.PASSED} == {job.verdict for job in jobs.values()}, [
        job.failure for job in jobs.values()
    ]
    assert ({"m1", "m2", "m3"} if shared else {"m1"}) == running
    assert {"build"} == {job.host for job in jobs.values()}
    assert [] == runs.open_leases()
    assert [] == cluster.instances()
    assert [] == cluster.volumes()


async def test_a_member_that_dies_loses_attempts_and_no_jobs(
    cluster: Cluster, far: FarHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one that pikaci logs in to. What it left is swept when it is back."""
    shutil.chown(cluster.shared, user=far.user)
    runs = ClusterRuns(cluster, tmp_path, monkeypatch, far=far)

    async def trouble(seen: Seen) -> None:
        await seen.until(lambda: len(seen.running()) == 3)
        await trio.to_thread.run_sync(cluster["m3"].power_off)

    jobs = await runs.run(dict.fromkeys("abc", SPEC), beside=trouble)
    left = runs.open_leases()
    await trio.to_thread.run_sync(cluster.bring_back, "m3")
    await runs.sweep()

    assert {Verdict.PASSED} == {job.verdict for job in jobs.values()}
    assert [1] == [job.losses for job in jobs.values() if job.losses]
    assert {"m1", "m2"} == {job.member for job in jobs.values()}
    assert ["m3"] == [member for _, member in left]
    assert [] == runs.open_leases()
    assert [] == cluster.instances()
