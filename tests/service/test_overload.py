"""Many clients cannot take descriptors from jobs, nor answers from each other."""

from __future__ import annotations

import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

import pytest
import trio

from orchestrator.service import limits
from orchestrator.service.descriptors import connections_per_listener, raise_descriptor_limit
from orchestrator.service.token import RequireToken
from tests.service.served import Served, open_served

GET = b"GET %s HTTP/1.1\r\nHost: pikaci\r\nConnection: close\r\n\r\n"
HALF_SENT = (
    b"POST /login HTTP/1.1\r\nHost: pikaci\r\nOrigin: http://pikaci\r\nContent-Length: 9\r\n\r\n"
)
STRANGERS = """
import resource, socket, sys
path, count, sent = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
found = []
for _ in range(count):
    one = socket.socket(socket.AF_UNIX)
    one.connect(path)
    try:
        one.sendall(sent)
    except OSError:
        pass
    found.append(one)
print("there", flush=True)
sys.stdin.read()
"""


@contextmanager
def descriptors_at_most(count: int) -> Iterator[None]:
    """Allow this process this many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (there + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def strangers(served: Served, count: int, sent: bytes) -> AsyncIterator[None]:
    """Another process opens this many connections, and sends this on each."""
    command = [sys.executable, "-c", STRANGERS, str(served.socket), str(count), sent.hex()]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.fail_after(60):
            assert b"there" in await process.stdout.receive_some()
        yield
    finally:
        await process.stdin.aclose()
        await process.wait()
        await process.stdout.aclose()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HALF_SENT], ids=["nothing", "head", "body"])
async def test_strangers_take_no_descriptor_that_a_job_needs(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs pass, clients with the token are answered, and the log has no traceback."""
    token = "a-token-of-some-length"
    most = connections_per_listener(400, listeners=1)
    async with open_served(wrap=partial(RequireToken, token=token), most=most) as served:
        served.http.headers["Authorization"] = f"Bearer {token}"
        with descriptors_at_most(200):
            async with strangers(served, 1060, sent):
                jobs = [await served.submit("true") for _ in range(8)]
                ended = [await served.orchestrator.job(job["id"]).wait() for job in jobs]

    assert 100 == most
    assert ["passed"] * 8 == [job.verdict for job in ended]
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_without_a_free_descriptor_the_service_waits_for_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged in one line, and the listener stays open."""
    async with open_served() as served:
        client = socket.socket(socket.AF_UNIX)
        with descriptors_at_most(20), client:
            held = []
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            client.connect(str(served.socket))
            with trio.fail_after(30):
                while "cannot be accepted" not in caplog.text:
                    await trio.sleep(0.01)
            for file in held:
                os.close(file)
        alive = await served.http.get("/healthz")

    assert 200 == alive.status_code
    assert "Traceback" not in caplog.text


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """And a quarter of it is for connections, up to a bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        found = raise_descriptor_limit()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (hard, hard) == raised
    assert found >= 256
    assert (128, 256, 1024, 1) == tuple(
        connections_per_listener(count, doors)
        for count, doors in ((1024, 2), (1024, 1), (1 << 20, 2), (3, 2))
    )


async def test_streams_leave_room_for_short_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit: one more is refused, and everything else is answered."""
    monkeypatch.setattr(limits, "MAX_STREAMS", 20)
    monkeypatch.setattr(limits, "MAX_REQUESTS", 5)
    async with open_served() as served:
        job = (await served.submit("sleep 10000"))["id"]
        await served.started(job)
        with (served.orchestrator.job(job).directory / "guest.log").open("ab") as file:
            file.truncate(50_000_000)
        streams = [f"/v1/jobs/{job}/events", "/v1/events", f"/v1/jobs/{job}/log"]
        async with AsyncExitStack() as held:
            for n in range(20):
                stream = await held.enter_async_context(
                    await trio.open_unix_socket(str(served.socket))
                )
                await stream.send_all(GET % streams[n % 3].encode())
                assert b"HTTP/1.1 200" == (await stream.receive_some())[:12]
            more = [await served.http.get(path) for path in streams]
            short = [
                await served.http.get(path)
                for path in ("/metrics", "/readyz", "/", f"/v1/jobs/{job}", "/v1/jobs")
            ]
            part = await served.http.get(streams[2], headers={"Range": "bytes=-1000"})
            other = await served.submit("true")
        await served.http.post(f"/v1/jobs/{job}/cancel", json={"now": True})

    assert [503] * 3 == [answer.status_code for answer in more]
    assert "20 streams" in more[0].json()["title"]
    assert "5" == more[0].headers["retry-after"]
    assert [200] * 5 == [answer.status_code for answer in short]
    assert 206 == part.status_code
    assert "submitted" == other["state"]


async def test_an_answer_that_nobody_takes_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its client, and others are answered."""
    monkeypatch.setattr(limits, "MAX_REQUESTS", 3)
    async with open_served() as served:
        for _ in range(6):
            await served.submit("true #" + "x" * 100_000)
        async with AsyncExitStack() as held:
            for _ in range(10):
                stream = await held.enter_async_context(
                    await trio.open_unix_socket(str(served.socket))
                )
                await stream.send_all(GET % b"/v1/jobs")
                assert b"HTTP/1.1 200" == (await stream.receive_some(12))
            answer = await served.http.get("/v1/statistics")

    assert 200 == answer.status_code
