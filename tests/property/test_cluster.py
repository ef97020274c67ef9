"""Jobs on a cluster to whose members anything happens, in any order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.capacity import Capacity
from orchestrator.hosts import Members
from orchestrator.incus import Incus
from orchestrator.job.queue import Queue
from orchestrator.session.recovery import recover
from states import events as ev
from states.outcome import Verdict
from states.spec import Deadlines, JobSpec
from tests.clock import open_clock
from tests.unit.orchestrator.fake_cluster import FakeCluster
from tests.unit.orchestrator.rig import Rig, open_rig

MEMBERS = ["m1", "m2", "m3"]
JOBS = 3
SPEC = JobSpec(command="sleep 60", timeout_secs=600, deadlines=Deadlines(daemon_secs=30))
QUIET_SECS = 20_000.0

steps = st.lists(
    st.tuples(
        st.sampled_from(["die", "return", "evacuate", "no quorum", "quorum"]),
        st.sampled_from(MEMBERS),
        st.sampled_from([0.0, 1.0, 5.0, 25.0, 60.0]),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(steps)
def test_no_job_is_lost_none_told_twice_and_nothing_is_left(
    steps: list[tuple[str, str, float]],
) -> None:
    """When all members are back, and pikaci was started once more."""
    with TemporaryDirectory() as base, open_clock() as clock:
        trio.run(_happen, Path(base), steps, clock=clock)


async def _happen(base: Path, steps: list[tuple[str, str, float]]) -> None:
    async with open_rig(base) as rig:
        cluster = FakeCluster(rig.fake, *MEMBERS)
        incus = Incus(base / "conf", spawn=cluster)
        here = replace(rig.context.here, incus=incus, members=Members(incus))
        rig.context._at["local"] = here
        tasks = [await rig.submit(SPEC, number=number) for number in range(1, JOBS + 1)]
        with trio.fail_after(QUIET_SECS):
            async with trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(task.run)
                async with trio.open_nursery() as troubles:
                    for what, member, after in steps:
                        await trio.sleep(after)
                        _do(cluster, what, member, troubles)
                cluster.has_quorum = True
                for member in MEMBERS:
                    cluster.come_back(member)
        await trio.sleep(60)
        await recover(rig.context, Queue(Capacity(jobs=4)))

        for task in tasks:
            _check(rig, task.job.id, troubled=bool(steps))
        assert [] == rig.journal.open_leases()
        assert not rig.fake.instances()


def _do(cluster: FakeCluster, what: str, member: str, nursery: trio.Nursery) -> None:
    match what:
        case "die":
            nursery.start_soon(cluster.fall_silent, member)
        case "return":
            cluster.come_back(member)
        case "evacuate" if cluster.status[member] == "Online":
            cluster.status[member] = "Evacuated"
        case "no quorum" | "quorum":
            cluster.has_quorum = what == "quorum"


def _check(rig: Rig, id: str, *, troubled: bool) -> None:
    job = rig.journal.job(id)
    allowed = {Verdict.PASSED, Verdict.INFRASTRUCTURE} if troubled else {Verdict.PASSED}
    assert job.verdict in allowed
    told = [e for e in rig.entries(id) if isinstance(e, ev.ResultCollected | ev.Failed)]
    assert 1 == len(told)
    lost = [e for e in rig.entries(id) if isinstance(e, ev.Lost)]
    assert len([e for e in lost if e.failure.phase == "running"]) == job.losses
