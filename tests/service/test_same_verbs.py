"""The library, its fake, and clients of a service on a socket and on TCP do the same for the same calls.

The clients' service is over the fake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from orchestrator import (
    JobSpec,
    Orchestrator,
    Request,
    Settings,
    SpecError,
    UsageError,
    Verdict,
    aio,
    connect,
)
from orchestrator.blocking import open_sync
from orchestrator.errors import KeyTaken, NotFound
from orchestrator.fake_incus import GuestCommand, GuestOutcome
from orchestrator.service.app import make_app
from orchestrator.service.connections import serve_connections
from orchestrator.service.server import tcp_socket
from orchestrator.service.token import RequireToken
from orchestrator.testing import open_fake
from states import events as ev
from states.testcases import CaseOutcome
from states.usage import Usage
from tests.service.served import Served, open_served

TOKEN = "t" * 32
REPORT = '<testsuite><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>'
FOREVER = "echo begun; exec sleep 10000"


def command(code: int) -> str:
    """A job that says hello, leaves a report and ends so."""
    return f"echo hello; echo '{REPORT}' >/artifacts/junit.xml; exit {code}"


async def guest(given: GuestCommand) -> GuestOutcome:
    """What a real guest does with these commands."""
    if given.text == FOREVER:
        given.print(b"begun\n")
        await trio.sleep_forever()
    given.print(b"hello\n")
    code = int(given.text.rpartition("exit ")[2])
    return GuestOutcome(exit_code=code, artifacts={"junit.xml": REPORT.encode()})


@asynccontextmanager
async def on_incus() -> AsyncIterator[Any]:
    with TemporaryDirectory(prefix="pikaci-test-") as name:
        (Path(name) / "workspace").mkdir()
        settings = Settings(workspace=Path(name) / "workspace", state_root=Path(name) / "root")
        async with Orchestrator.open(settings) as orchestrator:
            yield orchestrator


@asynccontextmanager
async def on_the_fake() -> AsyncIterator[Any]:
    async with open_fake(guest_script=guest) as (orchestrator, _):
        yield orchestrator


@asynccontextmanager
async def on_socket() -> AsyncIterator[Any]:
    async with (
        open_served(guest_script=guest) as served,
        connect(served.socket, workspace=Path(served.workspace)) as service,
    ):
        yield service


@asynccontextmanager
async def on_tcp() -> AsyncIterator[Any]:
    async with (
        open_served(guest_script=guest) as served,
        trio.open_nursery() as nursery,
    ):
        app = RequireToken(make_app(served.orchestrator, stopping=served.stopping), TOKEN)
        with tcp_socket("127.0.0.1:0") as door:
            nursery.start_soon(partial(serve_connections, app, door, served.stopping))
            host, port = door.getsockname()
            url = f"http://{host}:{port}"
            async with connect(url, token=TOKEN, workspace=Path(served.workspace)) as service:
                yield service
            with pytest.raises(UsageError):
                async with connect(url, token="wrong", workspace=Path("/")) as stranger:
                    await stranger.submit(JobSpec(command=command(0)))
            nursery.cancel_scope.cancel()


@pytest.fixture(
    params=[
        pytest.param(on_incus, marks=pytest.mark.incus, id="library"),
        pytest.param(on_the_fake, id="fake"),
        pytest.param(on_socket, id="client on a socket"),
        pytest.param(on_tcp, id="client on TCP"),
    ]
)
def opened(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_a_job_is_submitted_followed_and_awaited(opened: Any) -> None:
    """Its events, log, verdict, and what it left."""
    async with opened() as pikaci:
        spec = JobSpec(command=command(3), artifacts=("*",), junit=("*.xml",))
        job = await pikaci.submit(spec, name="tests")
        events = [event async for event in job.events()]
        log = b"".join([piece async for piece in job.log()])
        ended = await job.wait()

        assert (Verdict.FAILED, 3, "tests") == (ended.verdict, ended.exit_code, ended.name)
        assert isinstance(events[0], ev.Submitted)
        assert isinstance(events[-1], ev.ResultCollected)
        assert b"hello\n" in log
        left = await job.artifacts()
        assert ["junit.xml"] == [file.path for file in getattr(left, "files", left)]
        assert ["a", "b"] == [case.name for case in await job.tests()]
        assert ["b"] == [case.name for case in await job.tests(CaseOutcome.FAILED)]
        assert isinstance(await job.usage(), Usage | None)
        assert None is await job.output()
        again = await pikaci.find_job(job.id)
        assert ended == await again.wait() == await again.fetch()


async def test_a_key_is_submitted_once(opened: Any) -> None:
    """The same job is found again; another job with that key is refused."""
    async with opened() as pikaci:
        first = await pikaci.submit(JobSpec(command=command(0)), key="k")
        again = await pikaci.submit(JobSpec(command=command(0)), key="k")
        awaited = await pikaci.submit_and_wait(JobSpec(command=command(0)), key="k")
        assert first.id == again.id == awaited.id
        with pytest.raises(KeyTaken):
            await pikaci.submit(JobSpec(command=command(1)), key="k")


async def test_a_run_of_several_jobs(opened: Any, tmp_path: Path) -> None:
    """Its jobs in order, each with its end; it is found again, and its jobs are cancelled by id."""
    async with opened() as pikaci:
        specs = {
            "one": JobSpec(command=command(0)),
            "two": JobSpec(command=command(3), needs=("one",)),
        }
        run = await pikaci.submit_run(Request(tmp_path, specs, key="k"))
        ended = await run.wait()

        assert ["one", "two"] == [job.name for job in ended]
        assert [Verdict.PASSED, Verdict.FAILED] == [job.verdict for job in ended]
        again = await pikaci.submit_run(Request(tmp_path, specs, key="k"))
        found = await pikaci.find_run(run.id)
        assert run.id == again.id == found.id
        assert [job.id for job in run.jobs] == [job.id for job in found.jobs]
        with pytest.raises(NotFound):
            await pikaci.find_run("none")
        with pytest.raises(KeyTaken):
            await pikaci.submit_run(Request(tmp_path, {"one": specs["one"]}, key="k"))

        others = {name: JobSpec(command=FOREVER) for name in ("a", "b")}
        run = await pikaci.submit_run(Request(tmp_path, others))
        await pikaci.cancel([job.id for job in run.jobs], now=True, reason="no need")
        assert [Verdict.CANCELLED] * 2 == [job.verdict for job in await run.wait()]


async def test_errors_have_the_same_types(opened: Any) -> None:
    """What a caller must change, and what is not there; all mistakes of a spec at once."""
    async with opened() as pikaci:
        with pytest.raises(SpecError, match="2 mistakes") as wrong:
            await pikaci.submit(JobSpec(command=command(0), cpus=0, memory="4"))
        assert "cpus is 0; allowed: a whole number from 1 to 1024" in str(wrong.value)
        with pytest.raises(NotFound):
            await pikaci.find_job("none.1")
        with pytest.raises(UsageError):
            await pikaci.submit(JobSpec(command=command(0)), workspace=Path("/nonexistent"))


async def first_run(pikaci: Any) -> Any:
    """As soon as there is one."""
    with trio.fail_after(60):
        while True:
            try:
                return await pikaci.find_run("1")
            except NotFound:
                await trio.sleep(0.01)


async def test_cancelling_ends_the_job(opened: Any) -> None:
    """By its handle; and with the wait of `submit_and_wait`."""
    async with opened() as pikaci:
        job = await pikaci.submit(JobSpec(command=FOREVER))
        await job.cancel(now=True, reason="no need")
        assert Verdict.CANCELLED is (await job.wait()).verdict

    async with opened() as pikaci:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(pikaci.submit_and_wait, JobSpec(command=FOREVER)))
            (job,) = (await first_run(pikaci)).jobs
            async with aclosing(job.log()) as log:
                async for piece in log:
                    if b"begun\n" in piece:
                        break
            assert (await job.fetch()).verdict is None
            nursery.cancel_scope.cancel()
        assert Verdict.CANCELLED is (await job.fetch()).verdict, "before the block ends"


def test_the_client_works_in_threads_and_in_asyncio() -> None:
    """Through the portals of the library."""
    spec = JobSpec(command=command(3))

    async def from_asyncio(served: Served) -> tuple[Verdict | None, bytes]:
        there = connect(served.socket, workspace=Path(served.workspace))
        async with aio.open(there) as (portal, service):
            job = await portal.call(service.submit, spec)
            log = b"".join([piece async for piece in portal.each(job.log())])
            return (await portal.call(job.wait)).verdict, log

    with open_sync(open_served(guest_script=guest)) as (_, served):
        there = connect(served.socket, workspace=Path(served.workspace))
        with open_sync(there) as (portal, service):
            job = portal.call(service.submit_and_wait, spec)
            with pytest.raises(NotFound):
                portal.call(service.find_job, "none.1")
        verdict, log = asyncio.run(from_asyncio(served))

    assert Verdict.FAILED is job.verdict is verdict
    assert b"hello\n" in log


@pytest.mark.parametrize(
    ("where", "token", "told"),
    [
        ("/nonexistent/root/service.sock", "", "there is no such directory; name the socket"),
        ("http://127.0.0.1:1", "", "the token is empty"),
        ("http://127.0.0.1:1", "a\r\nb: c", "invalid characters"),
    ],
)
async def test_what_cannot_be_connected_to_is_told_at_once(
    where: str, token: str, told: str
) -> None:
    """What is wrong, and what to do."""
    with pytest.raises(UsageError, match=told):
        async with connect(where, token=token):
            pass
