"""The service's metrics, as Prometheus reads them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import trio
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import Capacity, JobSpec, Orchestrator, Request, SpecError
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.job.handle import JobHandle
from orchestrator.journal.stamp import now
from orchestrator.service.metrics import Metrics
from orchestrator.testing import open_fake
from states import events as ev

SLEEPS = JobSpec(command="sleep 10000", timeout_secs=100_000)


async def figures(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name, by label values, sorted by label names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families((await metrics.render()).decode())
        for sample in family.samples
        if sample.name == name
    }


async def running(job: JobHandle) -> None:
    async for event in job.events():
        if isinstance(event, ev.Running):
            return


async def released(orchestrator: Orchestrator, job: JobHandle) -> None:
    """Return when the job has ended, and its instance is gone."""
    await job.wait()
    while orchestrator.drives(job.id):
        await orchestrator.arrivals.entry(job.id).wait()


async def test_jobs_are_counted_by_how_they_ended_and_why() -> None:
    """Each once: its verdict, and the kind of its failure when it has one."""
    async with open_fake() as (orchestrator, fake):
        metrics = Metrics(orchestrator)
        for command in ("true", "true", "exit 3"):
            await orchestrator.submit_and_wait(JobSpec(command=command))
        fake.fail("create", with_error="no space left on device")
        await orchestrator.submit_and_wait(JobSpec(command="true", retries=0))
        sleeper = await orchestrator.submit(SLEEPS)
        await running(sleeper)
        await sleeper.cancel(now=True)
        try:
            await orchestrator.submit(JobSpec(command="true", writable_workspace=True))
        except SpecError:
            pass

        ended = await figures(metrics, "pikaci_jobs_ended_total")

    assert {
        ("", "passed"): 2,
        ("test", "failed"): 1,
        ("infrastructure", "infrastructure"): 1,
        ("cancelled", "cancelled"): 1,
        ("config", "rejected"): 1,
    } == ended


async def test_the_time_in_every_state_is_in_the_histograms() -> None:
    """It is the journal's own time; the last state has no end, and is not among them."""
    async with open_fake() as (orchestrator, _):
        metrics = Metrics(orchestrator)
        job = await orchestrator.submit_and_wait(JobSpec(command="sleep 0.2"))
        counts = await figures(metrics, "pikaci_phase_seconds_count")
        sums = await figures(metrics, "pikaci_phase_seconds_sum")

    *left, _ = job.phases
    assert {(phase.state.value,): 1 for phase in left} == counts
    assert {(phase.state.value,): (phase.duration_ms or 0) / 1000 for phase in left} == sums


async def test_a_job_of_an_earlier_start_is_measured_from_where_it_is() -> None:
    """Earlier states are not counted; the current one counts in full."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(SLEEPS)
        await running(job)
        metrics = Metrics(orchestrator)
        await job.cancel(now=True)
        counts = await figures(metrics, "pikaci_phase_seconds_count")
        sums = await figures(metrics, "pikaci_phase_seconds_sum")
        ended = await job.wait()

    assert {("running",): 1, ("cancelling",): 1} == counts
    (ran,) = (phase for phase in ended.phases if phase.state == "running")
    assert (ran.duration_ms or 0) / 1000 == sums["running",]


async def test_every_event_is_counted_with_its_way_to_the_disk() -> None:
    """Notes are not: they wait for the next event's write."""
    async with open_fake() as (orchestrator, _):
        metrics = Metrics(orchestrator)
        job = await orchestrator.submit_and_wait(JobSpec(command="true"))
        counts = await figures(metrics, "pikaci_journal_append_seconds_count")
        below = await figures(metrics, "pikaci_journal_append_seconds_bucket")

    assert {(): job.seq} == counts
    assert job.seq == below["+Inf",]


async def test_incus_calls_are_counted_by_verb_and_error() -> None:
    """The label is the type of the error; messages would create ever more series."""
    async with open_fake() as (orchestrator, fake):
        metrics = Metrics(orchestrator)
        fake.fail("create", with_error="no space left on device")
        for _ in range(2):
            job = await orchestrator.submit(JobSpec(command="true", retries=0))
            await released(orchestrator, job)
        # Notes are durable, and told of, with the next event.
        await orchestrator.submit_and_wait(JobSpec(command="true"))
        calls = await figures(metrics, "pikaci_incus_calls_total")

    assert 1 == calls["PoolFull", "launch"]
    assert 2 == calls["", "launch"]


async def test_the_queue_shows_its_depth_and_age() -> None:
    """As they are at the time of the request."""
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        metrics = Metrics(orchestrator)
        assert {("queued",): 0, ("running",): 0} == await figures(metrics, "pikaci_jobs")
        assert {(): 0} == await figures(metrics, "pikaci_queue_oldest_seconds")

        first, second = [await orchestrator.submit(SLEEPS) for _ in range(2)]
        await running(first)
        with trio.fail_after(30):
            while not second.waits_for():
                await trio.lowlevel.checkpoint()
        depth = await figures(metrics, "pikaci_jobs")
        age = await figures(metrics, "pikaci_queue_oldest_seconds")
        await orchestrator.cancel([first.id, second.id], now=True)

    assert {("queued",): 1, ("running",): 1} == depth
    assert age[()] > 0


async def test_instances_are_shown_by_their_leases() -> None:
    """An expired instance should be gone; an alert asks for it."""
    async with open_fake() as (orchestrator, _):
        metrics = Metrics(orchestrator)
        job = await orchestrator.submit(SLEEPS)
        await running(job)
        at = now()
        hour = timedelta(hours=1)
        await orchestrator.journal.append(
            ev.LeaseOpened(job=job.id, instance="kept", deadline=at["at"] + hour, **at),
            ev.LeaseKept(job=job.id, instance="kept", deadline=at["at"] + hour, **at),
            ev.LeaseOpened(job=job.id, instance="forgotten", deadline=at["at"] - hour, **at),
            ev.LeaseOpened(
                job="", instance="warm", deadline=at["at"] + hour, session="other", **at
            ),
        )
        found = await figures(metrics, "pikaci_instances")
        for name, owner in (("kept", job.id), ("forgotten", job.id), ("warm", "")):
            await orchestrator.journal.append(ev.LeaseEnded(job=owner, instance=name, **now()))
        await job.cancel(now=True)

    assert {("in_use",): 1, ("warm",): 1, ("kept",): 1, ("overdue",): 1} == found


async def test_the_page_names_them_all() -> None:
    """With their labels."""
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    async with open_fake() as (orchestrator, _):
        metrics = Metrics(orchestrator)
        await orchestrator.submit_and_wait(JobSpec(command="true"))
        there = {
            (sample.name.removesuffix("_count"), *sorted(sample.labels))
            for family in text_string_to_metric_families((await metrics.render()).decode())
            for sample in family.samples
            if sample.name.startswith("pikaci_")
            and not sample.name.endswith(("_bucket", "_sum", "_created"))
        }

    rows = re.findall(r"^\| `(pikaci_\w+)(?:\{(.*?)\})?` \|", page, re.MULTILINE)
    assert there == {(name, *sorted(re.findall(r"\w+", labels))) for name, labels in rows}


async def test_a_job_that_has_ended_takes_no_memory() -> None:
    """What is remembered of jobs is dropped when they end."""
    async with open_fake() as (orchestrator, _):
        metrics = Metrics(orchestrator)
        for command in ("true", "exit 3"):
            await orchestrator.submit_and_wait(JobSpec(command=command))

        assert {} == metrics._jobs


async def test_reused_and_waiting_jobs_are_counted() -> None:
    """A reused job has passed; one that waits for another is not queued."""

    async def script(command: GuestCommand) -> GuestOutcome:
        command.write("/artifacts/out/file", b"")
        if command.text == "slow":
            await trio.sleep_forever()
        return GuestOutcome()

    made = JobSpec(command="make", output="/artifacts/out", sources=())
    async with open_fake(guest_script=script) as (orchestrator, _):
        metrics = Metrics(orchestrator)
        for _ in range(3):
            await orchestrator.submit_and_wait(made)
        specs = {"slow": JobSpec(command="slow"), "after": JobSpec(command="x", needs=("slow",))}
        request = Request(orchestrator.root.path.parent / "workspace", specs)
        run = await orchestrator.submit_run(request)
        with trio.fail_after(30):
            while not run.jobs[1].waits_for():
                await trio.lowlevel.checkpoint()
        reused = await figures(metrics, "pikaci_outputs_reused_total")
        ended = await figures(metrics, "pikaci_jobs_ended_total")
        waiting = await figures(metrics, "pikaci_jobs_waiting")
        await orchestrator.cancel([job.id for job in run.jobs], now=True)

    assert {(): 2} == reused
    assert {("", "passed"): 3} == ended
    assert {(): 1} == waiting
