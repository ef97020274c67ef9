"""The types that who embeds pikaci gets; mypy reads this, nobody runs it."""

from pathlib import Path
from typing import assert_type

from orchestrator import (
    Capacity,
    Job,
    JobHandle,
    JobSpec,
    Orchestrator,
    Request,
    RunHandle,
    Settings,
    Snapshot,
    Statistics,
    Verdict,
    __version__,
    aio,
    check,
    connect,
)
from orchestrator.attempt.archive import Manifest
from orchestrator.blocking import open_sync
from orchestrator.fake_incus import FakeIncus
from orchestrator.service.remote import RemoteRun
from orchestrator.service.types import JobDocument
from orchestrator.testing import open_fake
from states import events as ev
from states.testcases import Case
from states.usage import Usage


def on_entry(entry: ev.Entry) -> None: ...


async def library() -> None:
    settings = Settings(workspace=Path("."), capacity=Capacity(jobs=2))
    async with Orchestrator.open(settings, on_entry=on_entry) as orchestrator:
        assert_type(orchestrator, Orchestrator)
        snapshot = await orchestrator.snapshot()
        assert_type(snapshot, Snapshot)
        job = await orchestrator.submit(JobSpec(command="true"), key="k", snapshot=snapshot)
        assert_type(job, JobHandle)
        assert_type(await orchestrator.submit_nowait(JobSpec(command="true")), JobHandle)
        assert_type(await orchestrator.submit_and_wait(JobSpec(command="true"), key="k"), Job)
        async for event in job.events():
            assert_type(event, ev.AnyEvent)
        async for number, entry in job.entries(after=1):
            assert_type(number, int)
            assert_type(entry, ev.Entry)
        async for chunk in job.log():
            assert_type(chunk, bytes)
        result = await job.wait()
        assert_type(result, Job)
        assert_type(result.verdict, Verdict | None)
        run = await orchestrator.submit_run(Request(Path("."), {"a": JobSpec(command="true")}))
        assert_type(run, RunHandle)
        assert_type(await run.wait(), list[Job])
        assert_type(orchestrator.statistics(), Statistics)
        assert_type(await job.artifacts(), Manifest)
        assert_type(await job.tests(), list[Case])
        assert_type(await job.usage(), Usage | None)
        assert_type(await job.output(), ev.OutputRef | None)
        await job.cancel(now=True)
    check(JobSpec(command="true"))
    assert_type(__version__, str)


async def from_asyncio() -> None:
    async with aio.open(Orchestrator.open(Settings(workspace=Path(".")))) as (portal, opened):
        assert_type(opened, Orchestrator)
        job = await portal.call(opened.submit, JobSpec(command="true"), key="k")
        assert_type(job, JobHandle)
        async for event in portal.each(job.events()):
            assert_type(event, ev.AnyEvent)
        await portal.call(opened.submit, "true")  # type: ignore[arg-type]


def from_threads() -> None:
    with open_sync(Orchestrator.open(Settings(workspace=Path(".")))) as (portal, opened):
        assert_type(portal.call(opened.submit_and_wait, JobSpec(command="true")), Job)
        portal.call(opened.submit, JobSpec(command="true"), kee="k")  # type: ignore[call-arg]


async def service() -> None:
    async with connect("http://127.0.0.1:1", token="t", workspace=Path(".")) as there:
        job = await there.submit(JobSpec(command="true"), key="k")
        assert_type((await job.wait()).verdict, Verdict | None)
        async for event in job.events():
            assert_type(event, ev.AnyEvent)
        assert_type(await job.usage(), Usage | None)
        assert_type(await there.submit_and_wait(JobSpec(command="true"), key="k"), JobDocument)
        run = await there.submit_run(Request(Path("."), {"a": JobSpec(command="true")}))
        assert_type(run, RemoteRun)
        assert_type(await run.wait(), list[JobDocument])
        assert_type(await there.find_run(run.id), RemoteRun)


async def own_tests() -> None:
    async with open_fake() as (orchestrator, fake):
        assert_type(orchestrator, Orchestrator)
        assert_type(fake, FakeIncus)


async def mistakes(orchestrator: Orchestrator) -> None:
    """Each of these is an error; mypy says so when one is not."""
    await orchestrator.submit("true")  # type: ignore[arg-type]
    await orchestrator.submit(JobSpec(command="true"), timeout=3)  # type: ignore[call-arg]
    orchestrator.job(3)  # type: ignore[arg-type]
    Settings()  # type: ignore[call-arg]
    from orchestrator import Orchestrators  # type: ignore[attr-defined]  # noqa: F401
    from orchestrator.cli import picaki  # type: ignore[attr-defined]  # noqa: F401
