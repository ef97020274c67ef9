"""Many jobs on a cluster whose members die, hang, come back and are evacuated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio

from states.outcome import Verdict
from states.spec import Deadlines, JobSpec
from tests.hosts.cluster import Cluster
from tests.hosts.cluster_runs import ClusterRuns, Seen

JOBS, PARALLEL = 60, 6
SPEC = JobSpec(
    command="echo begin; cat hello.txt; sleep 4; echo end",
    cpus=1,
    deadlines=Deadlines(daemon_secs=20),
)

pytestmark = [pytest.mark.incus, pytest.mark.hosts]


async def test_no_job_is_lost_and_none_is_told_twice(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One member loses power after 20 jobs, one hangs, both come back, and one is evacuated."""
    runs = ClusterRuns(cluster, tmp_path, monkeypatch)
    table: list[str] = []

    async def trouble(seen: Seen) -> None:
        async def lose(what: str, member: str, after: int) -> None:
            await seen.until(lambda: seen.ended() >= after and seen.running()[member] > 0)
            table.append(
                f"{member} {what}: {seen.ended()} jobs had ended, {seen.running()[member]} ran on it"
            )

        async def until_lost(member: str, before: int) -> None:
            await seen.until(lambda: seen.lost()[member] > before)

        await lose("dies", "m3", 20)
        await trio.to_thread.run_sync(cluster["m3"].power_off)
        await until_lost("m3", 0)
        await trio.to_thread.run_sync(cluster.bring_back, "m3")
        await lose("hangs", "m2", seen.ended() + 4)
        cluster["m2"].stop()
        await until_lost("m2", 0)
        cluster["m2"].go_on()
        await lose("is evacuated", "m3", seen.ended() + 2)
        lost = seen.lost()["m3"]
        await trio.to_thread.run_sync(cluster.ask, "evacuate", "m3")
        await until_lost("m3", lost)
        await trio.to_thread.run_sync(cluster.ask, "restore", "m3")

    jobs = await runs.run(
        {f"job-{n}": SPEC for n in range(JOBS)}, beside=trouble, parallel=PARALLEL
    )
    left = runs.open_leases()
    await runs.sweep()

    print(*table, *(f"{n} x {what}" for what, n in runs.losses().items()), sep="\n")
    print(f"left at the end, by member: {dict(Counter(member for _, member in left))}")
    assert {Verdict.PASSED} == {job.verdict for job in jobs.values()}
    assert JOBS == len(jobs)
    assert {1} == set(runs.verdicts().values())
    assert [] == runs.open_leases()
    assert [] == cluster.instances()
