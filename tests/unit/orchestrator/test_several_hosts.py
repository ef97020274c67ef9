"""Jobs that have a choice of hosts, and jobs that name one, over several fakes."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec, SpecError, Verdict
from orchestrator.capacity import Capacity
from orchestrator.cli.run_table import print_jobs, print_runs
from orchestrator.errors import UsageError
from orchestrator.report import job_document
from states.spec import Mount, OutputOf
from tests.unit.orchestrator.ground import LONG, Ground, ended, warnings
from tests.unit.orchestrator.ground import ground as ground


async def test_each_job_takes_the_first_host_with_a_free_slot(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """Each host has slots of its own; `b` has one, as its settings say. The fourth waits."""
    async with ground.open("a", "b") as orchestrator:
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(4)})
        await trio.sleep(100)
        waits = orchestrator.waits_for(run.jobs[3].id)
        slots = orchestrator.queue.slots(["a"])
        jobs = await ended(run)

    assert ["a", "a", "b"] == [job.host for job in jobs[:3]]
    assert jobs[3].host in ("a", "b")
    assert {Verdict.PASSED} == {job.verdict for job in jobs}, [job.failure for job in jobs]
    assert "on a: a slot: 2 of 2 are taken; on b: a slot: 1 of 1 are taken" == waits
    assert 3 == slots
    assert {"a", "b"} == set(ground.hosts.creates)


async def test_a_job_names_its_host(ground: Ground, autojump_clock: MockClock) -> None:
    """Whatever the hosts of the others are."""
    async with ground.open("a") as orchestrator:
        specs = {
            name: JobSpec(command="echo fine", host=host)
            for name, host in (("here", "local"), ("there", "b"), ("any", None))
        }
        jobs = await ended(await ground.submit(orchestrator, specs))

    assert ["", "b", "a"] == [job.host for job in jobs]
    assert ["a", "b", "local"] == sorted(ground.hosts.creates)


async def test_a_host_that_nobody_has_is_refused_at_the_door(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """Nothing is begun."""
    async with ground.open("a") as orchestrator:
        with pytest.raises(SpecError, match="there is no host 'c' in") as error:
            await orchestrator.submit(JobSpec(command="true", host="c"))
        with pytest.raises(UsageError, match="there is no host 'c' in"):
            await ground.submit(orchestrator, {"job": LONG}, hosts=("a", "c"))

    assert "host" == error.value.key
    assert "one of local, a, b" in error.value.resolution
    assert [] == ground.hosts.creates


async def test_a_host_without_the_image_is_left_out_and_told(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """If no host has it, the job is refused with the words of all."""
    ground.hosts["a"].store.project("pikaci").images.clear()
    async with ground.open("a", "b") as orchestrator:
        (job,) = await ended(await ground.submit(orchestrator, {"job": JobSpec(command="true")}))
        said = warnings(orchestrator, job)
        with pytest.raises(SpecError, match="2 mistakes") as error:
            await orchestrator.submit(JobSpec(command="true", image="none"))

    assert "b" == job.host
    assert 1 == len(said)
    assert said[0].startswith("jobs.job does not run on the host a: image of the job job: there is")
    assert "no image none in project pikaci of a" in error.value.details
    assert "no image none in project pikaci of b" in error.value.details


async def test_directories_keep_a_job_on_this_machine(
    ground: Ground, tmp_path: Path, autojump_clock: MockClock
) -> None:
    there = tmp_path / "data"
    there.mkdir()
    spec = JobSpec(command="true", mounts=(Mount(str(there), "/mnt/it"),))
    async with ground.open("a", "local") as orchestrator:
        (job,) = await ended(await ground.submit(orchestrator, {"job": spec}))
        said = warnings(orchestrator, job)
        with pytest.raises(SpecError, match="would be a directory of the host a"):
            await ground.submit(orchestrator, {"job": spec}, hosts=("a", "b"))

    assert "" == job.host
    assert Verdict.PASSED is job.verdict
    assert "would be a directory of the host a" in said[0]


async def test_trees_go_to_every_host_and_images_keep_their_host(
    ground: Ground, autojump_clock: MockClock
) -> None:
    specs = {
        "tree": JobSpec(command="echo x", output="/artifacts/out", host="a"),
        "reads": JobSpec(command="true", workspace_deps=OutputOf("tree"), host="b"),
        "image": JobSpec(command="true", output="image", run_as_root=True, host="a"),
        "uses": JobSpec(command="true", image=OutputOf("image"), host="b"),
    }
    async with ground.open("a", "b") as orchestrator:
        run = await ground.submit(orchestrator, specs)
        refused = await ended(run)

    assert ["uses"] == [job.name for job in refused]
    assert refused[0].failure is not None
    assert "image leaves its image on its host, a, and uses runs on b" in refused[0].failure.message
    assert [] == ground.hosts.creates


async def test_a_maker_of_an_image_goes_where_its_users_fit(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """The door asks the hosts for each job, and a host that is too small for one is so for both."""
    ground.hosts["b"].store.machine.memory_bytes = 8 << 30
    specs = {
        "image": JobSpec(command="true", output="image", run_as_root=True),
        "uses": JobSpec(command="true", image=OutputOf("image"), memory="64GiB"),
    }
    async with ground.open("b", "a") as orchestrator:
        jobs = await ended(await ground.submit(orchestrator, specs))
        said = [" ".join(warnings(orchestrator, job)) for job in jobs]

    assert ["a", "a"] == [job.host for job in jobs], [job.failure for job in jobs]
    assert (
        "jobs.image does not run on the host b: the job that makes its image, or one that"
        in said[0]
    )
    assert "jobs.uses does not run on the host b: its cpus, memory or disk are too small" in said[1]


async def test_a_job_that_was_queued_takes_any_of_its_hosts_at_the_next_start(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """And one that had begun stays on its host."""
    async with AsyncExitStack() as stack:
        orchestrator = await stack.enter_async_context(
            ground.open("a", "b", capacity=Capacity(jobs=1))
        )
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(3)})
        await trio.sleep(50)
        orchestrator.detach()
    ground.hosts.silent.add("a")
    async with ground.open() as orchestrator:
        queued = await orchestrator.job(run.jobs[2].id).wait()
        ground.hosts.silent.clear()
        jobs = await ended(orchestrator.run(run.id))

    assert ("b", Verdict.PASSED) == (queued.host, queued.verdict)
    assert ["a", "b", "b"] == [job.host for job in jobs]


async def test_a_job_that_has_not_begun_is_said_to_be_nowhere(
    ground: Ground, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """But where it may be; also to programs."""
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(3)})
        await trio.sleep(100)
        jobs = [orchestrator.journal.job(job.id) for job in run.jobs]
        print_jobs(jobs)
        shown = capsys.readouterr().out
        rows = {run.id: orchestrator.journal.jobs(run=run.id)}
        print_runs(rows, (), with_jobs=False, members={})
        listed = capsys.readouterr().out
        await orchestrator.cancel([job.id for job in run.jobs], now=True)

    where = [re.split(" {2,}", line)[3] for line in shown.splitlines()[1:]]
    assert ["a", "b", "a or b"] == where
    assert "  a, b  " in listed
    assert [(), (), ("a", "b")] == [job_document(job).hosts for job in jobs]


@pytest.mark.parametrize(("cluster", "limit"), [(None, 1), (False, 1), (True, None)])
async def test_the_limit_of_a_host_is_its_members_once_it_is_known_to_be_a_cluster(
    ground: Ground, cluster: bool | None, limit: int | None
) -> None:
    async with ground.open("b") as orchestrator:
        members = orchestrator._context.here.members
        assert members is not None
        if cluster is not None:
            ground.hosts.clusters |= {"b"} if cluster else set()
            assert cluster is await members.ask()

        assert limit == orchestrator._context.limit("b")
        assert None is orchestrator._context.limit("a")


async def test_an_image_is_made_where_its_user_can_run(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """Although its maker could run elsewhere, where the slot is free, too."""
    ground.hosts["b"].store.networks.append("incusbr0")
    specs = {
        "make": JobSpec(command="true", output="image", run_as_root=True),
        "use": JobSpec(command="true", image=OutputOf("make"), network="incusbr0"),
    }
    async with ground.open("a", "b") as orchestrator:
        jobs = await ended(await ground.submit(orchestrator, specs))

    assert ["b", "b"] == [job.host for job in jobs], [job.failure for job in jobs]
