"""Jobs that have a choice of hosts, and jobs that name one, over several fakes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec, Orchestrator, Request, Settings, SpecError, Verdict
from orchestrator.capacity import Capacity
from orchestrator.cli.run_table import print_jobs, print_runs
from orchestrator.errors import UsageError
from orchestrator.incus import Incus
from orchestrator.incus.errors import DaemonUnreachable
from orchestrator.job.handle import RunHandle
from orchestrator.job.queue import LOOK_AGAIN_SECS
from orchestrator.job.silent_hosts import ASK_SECS, LEFT_OUT_SECS
from orchestrator.report import job_document
from orchestrator.session import reaper
from orchestrator.session.upkeep import EVERY_SECS
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.spec import Deadlines, Mount, OutputOf
from tests.calls import call
from tests.unit.orchestrator.fake_hosts import FakeHosts, open_fake_hosts

# As root: the fake has no id maps of its own choice for guests that run at the same time.
LONG = JobSpec(command="sleep 1000", timeout_secs=5000, run_as_root=True)


class Ground:
    """A state root, and hosts `a` and `b` beside the local one."""

    def __init__(self, base: Path, hosts: FakeHosts) -> None:
        self.base = base
        self.hosts = hosts
        self.workspace = base / "ws"
        self.workspace.mkdir(exist_ok=True)

    @asynccontextmanager
    async def open(self, *names: str, **more: Any) -> AsyncIterator[Orchestrator]:
        settings = Settings(
            self.workspace,
            state_root=self.base / "root",
            hosts=names,
            capacity=more.pop("capacity", Capacity(jobs=2)),
            **more,
        )
        incus = Incus(self.base / "conf", spawn=self.hosts)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            yield orchestrator

    async def submit(
        self, orchestrator: Orchestrator, specs: dict[str, JobSpec], **more: Any
    ) -> RunHandle:
        return await orchestrator.submit_run(Request(self.workspace, specs, **more))


@pytest.fixture
async def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    async with open_fake_hosts(tmp_path, monkeypatch, "a", "b", b="jobs = 1") as hosts:
        yield Ground(tmp_path, hosts)


async def ended(run: RunHandle) -> list[Job]:
    return [await job.wait() for job in run.jobs]


def warnings(orchestrator: Orchestrator, job: Job) -> list[str]:
    entries = orchestrator.journal.entries(job.id)
    return [entry.message for _, entry in entries if isinstance(entry, ev.Warned)]


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


@pytest.mark.parametrize("silent", [True, False])
async def test_a_host_that_is_down_stops_no_job_of_another(
    ground: Ground, silent: bool, autojump_clock: MockClock
) -> None:
    """Neither at the door, nor in the queue; it gets jobs when it is back."""
    if silent:
        ground.hosts.silent.add("a")
    else:
        ground.hosts["a"].kill_daemon()
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        first = await ended(await ground.submit(orchestrator, {"job": JobSpec(command="true")}))
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(3)})
        await trio.sleep(2)
        ground.hosts.silent.clear()
        if not silent:
            ground.hosts["a"].restart_daemon()
        await trio.sleep(LEFT_OUT_SECS + LOOK_AGAIN_SECS)
        begun = [orchestrator.known(job.id) for job in run.jobs]
        await ended(run)

    assert ("b", Verdict.PASSED) == (first[0].host, first[0].verdict)
    assert {"a", "b"} == {job.host for job in begun if job is not None and not job.hosts}


async def test_hosts_that_are_down_are_waited_for_together(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """A submission takes no longer for two of them than for one."""
    ground.hosts.silent |= {"a", "b"}
    async with ground.open("a", "b", "local") as orchestrator:
        began = trio.current_time()
        run = await ground.submit(orchestrator, {"job": JobSpec(command="true")})
        took = trio.current_time() - began
        (job,) = await ended(run)

    assert ("", Verdict.PASSED) == (job.host, job.verdict)
    assert ASK_SECS <= took < 1.5 * ASK_SECS


async def test_a_host_that_goes_away_while_jobs_are_queued_is_passed_over(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """A job that got its slot there goes back to the line; none has failed."""
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(4)})
        await trio.sleep(10)
        first = orchestrator.known(run.jobs[0].id)
        assert first is not None and "a" == first.host
        ground.hosts.silent.add("a")
        # It cannot be confirmed, but frees the slot.
        with trio.move_on_after(30):
            await orchestrator.cancel([first.id], now=True)
        jobs = [await job.wait() for job in run.jobs[1:]]
        ground.hosts.silent.clear()

    assert ["b"] * 3 == [job.host for job in jobs]
    assert {Verdict.PASSED} == {job.verdict for job in jobs}


@pytest.mark.parametrize("phase", [0, 10, 20])
async def test_without_any_host_a_job_fails_when_its_time_for_that_is_over(
    ground: Ground, phase: float, autojump_clock: MockClock
) -> None:
    """As an infrastructure fault; it would go on if one came back in time.

    Whenever others ask the hosts, and however long ago each was found silent.
    """
    spec = JobSpec(command="true", deadlines=Deadlines(daemon_secs=60))
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        blockers = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(2)})
        await trio.sleep(10)
        run = await ground.submit(orchestrator, {"job": spec})
        ground.hosts.silent |= {"a", "b"}
        with trio.move_on_after(30):
            await orchestrator.cancel([job.id for job in blockers.jobs], now=True)
        await trio.sleep(phase)
        with suppress(DaemonUnreachable):
            async with orchestrator._context.silent.asking("b"):
                await trio.sleep_forever()
        with trio.fail_after(500):
            (job,) = await ended(run)
        ground.hosts.silent.clear()

    assert Verdict.INFRASTRUCTURE is job.verdict
    assert job.failure is not None
    assert "did not answer" in job.failure.message


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


async def test_a_job_that_was_queued_for_hosts_that_are_all_away_is_left_as_it_is(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """One of them is enough for it to begin."""
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(3)})
        await trio.sleep(50)
        orchestrator.detach()
    queued = run.jobs[2].id
    for name in ("a", "b"):
        ground.hosts[name].kill_daemon()
    async with ground.open("a", "b") as orchestrator:
        await trio.sleep(1000)
        before = orchestrator.job(queued).job
        orchestrator.detach()
    ground.hosts["b"].restart_daemon()
    async with ground.open("a", "b") as orchestrator:
        after = await orchestrator.job(queued).wait()

    assert (State.SUBMITTED, None) == (before.state, before.verdict)
    assert ("b", Verdict.PASSED) == (after.host, after.verdict)


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


async def test_what_is_left_on_one_host_is_deleted_while_another_is_away(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """And the rest when that is back."""
    for name in ("a", "b"):
        ground.hosts[name].fail("delete", with_error="no", times=1)
    async with ground.open("a") as orchestrator:
        specs = {name: JobSpec(command="true", host=name) for name in ("a", "b")}
        await ended(await ground.submit(orchestrator, specs))
        await trio.sleep(1)
        left = [lease.host for lease in orchestrator.journal.open_leases()]
        ground.hosts.silent.add("a")
        await trio.sleep(4 * EVERY_SECS)
        later = [lease.host for lease in orchestrator.journal.open_leases()]
        ground.hosts.silent.clear()
        await trio.sleep(4 * EVERY_SECS)
        last = [lease.host for lease in orchestrator.journal.open_leases()]

    assert (["a", "b"], ["a"], []) == (sorted(left), later, last)


async def make_stray(orchestrator: Orchestrator, host: str) -> None:
    """An instance with the state root's owner key that no lease names."""
    incus = orchestrator._context.at(host).incus
    tags = {reaper.OWNER: orchestrator.journal.owner, reaper.RUN: "gone"}
    root = {"root": {"type": "disk", "path": "/", "pool": "pikaci"}}
    document = msgspec.json.encode({"config": tags, "devices": root})
    image = f"{incus.remote}:pikaci/dev"
    await call(incus, "create", image, incus.name("stray"), stdin=document)


async def test_upkeep_of_a_host_does_not_wait_for_another_that_is_silent(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """Leases are released and instances reaped in time; questions to the other do not pile up."""
    hosts = ground.hosts
    for name in ("a", "b"):
        hosts[name].fail("delete", with_error="no", times=1)
    async with ground.open("a") as orchestrator:
        specs = {name: JobSpec(command="true", host=name) for name in ("a", "b")}
        await ended(await ground.submit(orchestrator, specs))
        await trio.sleep(1)
        journal = orchestrator.journal
        hosts.silent.add("a")
        await make_stray(orchestrator, "b")
        await trio.sleep(EVERY_SECS + 1)
        left = [lease.host for lease in journal.open_leases()], hosts["b"].instances()
        hanging = set()
        for _ in range(100):
            await trio.sleep(EVERY_SECS / 7)
            hanging.add(hosts.hanging)
        await make_stray(orchestrator, "b")
        await trio.sleep(EVERY_SECS + 1)
        reaped = not hosts["b"].instances()
        hosts.silent.clear()
        await trio.sleep(3 * EVERY_SECS)
        last = journal.open_leases(), hosts["a"].instances()

    assert (["a"], {}) == left
    assert max(hanging) <= 2  # what is looked for, and a sign of life
    assert reaped
    assert ([], {}) == last


async def test_a_host_that_comes_back_is_not_left_until_jobs_elsewhere_have_ended(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """Of jobs that belong together, and of the instances that ended ones left."""
    specs = {
        "long": msgspec.structs.replace(LONG, command="sleep 4000", host="a"),
        "over": JobSpec(command="true", host="b"),
        "there": msgspec.structs.replace(LONG, host="b"),
    }
    ground.hosts["b"].fail("delete", with_error="no", times=1)
    async with ground.open("a") as orchestrator:
        run = await ground.submit(orchestrator, specs)
        await run.jobs[1].wait()
        await trio.sleep(20)
        orchestrator.detach()
    ground.hosts["b"].kill_daemon()
    async with ground.open("a") as orchestrator:
        await trio.sleep(5 * EVERY_SECS)
        ground.hosts["b"].restart_daemon()
        await trio.sleep(3 * EVERY_SECS)
        left = [lease.job for lease in orchestrator.journal.open_leases()]
        driven = [orchestrator.drives(job.id) for job in run.jobs]
        jobs = await ended(orchestrator.run(run.id))

    assert [True, False, True] == driven
    assert {run.jobs[0].id, run.jobs[2].id} == set(left)
    assert {Verdict.PASSED} == {job.verdict for job in jobs}, [job.failure for job in jobs]


async def test_a_host_that_is_in_the_settings_no_more_stops_no_job_of_another(
    ground: Ground, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It is told, and its job is left alone until the host is back."""
    async with ground.open("a") as orchestrator:
        specs = {name: msgspec.structs.replace(LONG, host=name) for name in ("a", "b")}
        run = await ground.submit(orchestrator, specs)
        await trio.sleep(50)
        orchestrator.detach()
    path = tmp_path / "hosts.toml"
    both = path.read_text()
    path.write_text(both[both.index("[hosts.b]") :])
    async with ground.open("b") as orchestrator:
        other = await orchestrator.job(run.jobs[1].id).wait()
        waiting = orchestrator.journal.job(run.jobs[0].id)
        faults = orchestrator.fault_counts["recover"]
    path.write_text(both)
    async with ground.open("b") as orchestrator:
        first = await orchestrator.job(run.jobs[0].id).wait()

    assert ("b", Verdict.PASSED, None) == (other.host, other.verdict, waiting.verdict)
    assert faults > 0
    assert ("a", Verdict.PASSED) == (first.host, first.verdict)


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
