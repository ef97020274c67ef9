"""What a client can do to its connection, and through it to others."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from orchestrator.service import connection, connections, limits
from tests.service.served import Served, open_served

GET = b"GET %s HTTP/1.1\r\nHost: pikaci\r\n%s\r\n"
POST = (
    b"POST /v1/runs HTTP/1.1\r\nHost: pikaci\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@asynccontextmanager
async def connected(served: Served, *send: bytes) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_unix_socket(str(served.socket)) as stream:
        for data in send:
            await stream.send_all(data)
        yield stream


async def answer_to(served: Served, request: bytes) -> bytes:
    """Everything received until the connection closes."""
    async with connected(served, request) as stream:
        return await rest_of(stream)


async def rest_of(stream: trio.SocketStream) -> bytes:
    found = b""
    with trio.fail_after(10_000):
        while part := await stream.receive_some():
            found += part
    return found


async def with_long_log(served: Served) -> bytes:
    """A request for a log of 50 MB, far more than a socket holds."""
    job = await served.submit()
    await served.orchestrator.job(job["id"]).wait()
    await served.settled(job["id"])
    with (served.orchestrator.job(job["id"]).directory / "guest.log").open("ab") as file:
        file.truncate(50_000_000)
    return GET % (f"/v1/jobs/{job['id']}/log".encode(), b"")


def descriptors() -> int:
    """Open descriptors, except those of the journal, which may keep several readers."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += "journal.sqlite3" not in os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # of the listing itself
    return count


def tasks_below(task: trio.lowlevel.Task) -> int:
    return 1 + sum(tasks_below(t) for n in task.child_nurseries for t in n.child_tasks)


async def quiet(served: Served) -> tuple[int, int]:
    """The service's tasks and our descriptors, once everything released is gone."""
    await trio.sleep(30)
    return tasks_below(served.task), descriptors()


@pytest.mark.parametrize(
    "request_",
    [
        GET % (b"/nothing", UPGRADE + b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: \xff\r\n"),
        GET % (b"/nothing", UPGRADE),
        GET
        % (
            b"/nothing",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !\r\n",
        ),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        GET % (b"/nothing", b"X: " + b"y" * 100_000),
        b"POST /v1/runs HTTP/1.1\r\nHost: pikaci\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: pikaci\r\nContent-Length: -3\r\n\r\n",
        b"\r\n" * 20_000,
    ],
    ids=["web socket", "no key", "h2c", "h2", "TLS", "long", "chunk", "length", "lines"],
)
async def test_what_is_no_request_is_answered_so_and_harms_nobody(
    request_: bytes, autojump_clock: MockClock
) -> None:
    """Only HTTP/1 is served, and errors are problem documents as elsewhere."""
    async with open_served() as served:
        answer = await answer_to(served, request_)
        alive = await served.http.get("/healthz")

    assert b"application/problem+json" in answer
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 415", b"HTTP/1.1 431"))
    assert 200 == alive.status_code


async def test_who_listens_need_not_speak(autojump_clock: MockClock) -> None:
    """A stream lasts as long as the job, however silent both are."""
    async with open_served() as served:
        job = await served.submit("sleep 1000")
        streams = [
            await answer_to(served, GET % (path.encode(), b"Connection: close\r\n"))
            for path in (f"/v1/jobs/{job['id']}/log?follow=true", f"/v1/jobs/{job['id']}/events")
        ]

    assert streams[0].endswith(b"0\r\n\r\n")
    assert b"event: result_collected" in streams[1]


async def test_a_long_submission_is_answered(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client waits for it in silence."""
    async with open_served() as served:
        snapshot = served.orchestrator.snapshot

        async def slow(*args: object, **options: object) -> object:
            await trio.sleep(100)
            return await snapshot(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(served.orchestrator, "snapshot", slow)
        served.http.timeout = 1000

        assert "submitted" == (await served.submit("true"))["state"]


async def test_who_takes_nothing_is_let_go(autojump_clock: MockClock) -> None:
    """And leaves nothing behind."""
    async with open_served() as served:
        request = await with_long_log(served)
        before = await quiet(served)
        async with AsyncExitStack() as slow:
            for _ in range(10):
                await slow.enter_async_context(connected(served, request))
            await trio.sleep(connection.SEND_SECS + 60)
            tasks, _ = await quiet(served)
        after = await quiet(served)

    assert before[0] == tasks
    assert before == after


async def test_who_takes_little_by_little_gets_it_all(autojump_clock: MockClock) -> None:
    """The deadline is per piece, not for the whole answer."""
    async with open_served() as served:
        request = await with_long_log(served)
        async with connected(served, request) as stream:
            taken = 0
            while taken < 2_000_000:
                await trio.sleep(connection.SEND_SECS / 10)
                taken += len(await stream.receive_some(100_000))


@pytest.mark.parametrize("hurry", [False, True], ids=["once", "twice"])
async def test_no_client_keeps_a_service_from_its_end(
    hurry: bool, autojump_clock: MockClock
) -> None:
    """Nor for one that does not read; a second signal does not wait at all."""
    async with open_served() as served:
        request = await with_long_log(served)
        async with (
            connected(served, request) as slow,
            connected(served) as silent,
            connected(served, GET % (b"/healthz", b"")) as idle,
        ):
            await trio.sleep(1)
            begun = trio.current_time()
            if hurry:
                served.serving.cancel()
            else:
                served.stopping.set()
            await served.ended.wait()
            took = trio.current_time() - begun
            await rest_of(slow)
            await rest_of(silent)
            await rest_of(idle)

    assert took <= (0.5 if hurry else connections.STOP_SECS + 0.5)


async def test_connections_are_bounded(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A new client gets Retry-After; those being answered stay."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    async with open_served() as served:
        job = await served.submit("sleep 1000000")
        await served.started(job["id"])
        stream = GET % (f"/v1/jobs/{job['id']}/events".encode(), b"")
        async with AsyncExitStack() as open_ones:
            first = [
                await open_ones.enter_async_context(connected(served, stream)) for _ in range(5)
            ]
            assert [b"HTTP/1.1 200"] * 5 == [(await found.receive_some())[:12] for found in first]
            refused = await answer_to(served, b"")
            await trio.sleep(16)
            heard = [await found.receive_some() for found in first]
        await quiet(served)
        later = await served.http.get("/healthz")

    assert refused.startswith(b"HTTP/1.1 503")
    assert b"Retry-After: 5" in refused
    assert all(heard)
    assert 200 == later.status_code


@pytest.mark.parametrize(
    ("begin", "rest"),
    [
        (b"", GET % (b"/healthz", b"")),
        (b"GET /healthz HT", b"TP/1.1\r\nHost: pikaci\r\n\r\n"),
        (POST % 2, b"{}"),
    ],
    ids=["nothing", "head", "body"],
)
async def test_who_is_waited_for_gives_way(
    begin: bytes, rest: bytes, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The one that waits longest; the others stay."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    async with open_served() as served, AsyncExitStack() as open_ones:
        first = []
        for _ in range(5):
            first.append(await open_ones.enter_async_context(connected(served, begin)))
            await trio.sleep(0.1)
        new = await answer_to(served, GET % (b"/healthz", b"Connection: close\r\n"))
        await rest_of(first[0])
        others = []
        for found in first[1:]:
            await found.send_all(rest)
            others.append((await found.receive_some())[:9])

    assert new.startswith(b"HTTP/1.1 200")
    assert [b"HTTP/1.1 "] * 4 == others


@pytest.mark.parametrize("begin", [b"", b"GET /healthz HT", GET % (b"/healthz", b"")])
async def test_who_says_nothing_is_let_go(begin: bytes, autojump_clock: MockClock) -> None:
    """Before a request, in its head, and between two; sending single bytes does not help."""
    async with open_served() as served, connected(served, begin) as stream:
        before = trio.current_time()

        async def drip() -> None:
            while True:
                await trio.sleep(1)
                try:
                    await stream.send_all(b"G" if begin[-1:] != b"\n" else b"")
                except trio.BrokenResourceError:
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            try:
                await rest_of(stream)
            except trio.BrokenResourceError:
                pass
            nursery.cancel_scope.cancel()

        assert trio.current_time() - before < 4 * connection.IDLE_SECS


async def test_a_connection_is_let_go_behind_a_stream_too(autojump_clock: MockClock) -> None:
    """It is between two requests then, as after any other answer."""
    async with open_served() as served:
        job = await served.submit()
        await served.orchestrator.job(job["id"]).wait()
        before = trio.current_time()
        for path in ("log", "events"):
            streamed = await answer_to(served, GET % (f"/v1/jobs/{job['id']}/{path}".encode(), b""))
            assert streamed.startswith(b"HTTP/1.1 200")

        assert trio.current_time() - before < 4 * connection.IDLE_SECS


async def test_a_body_has_one_deadline(autojump_clock: MockClock) -> None:
    """Not one for each of its bytes."""
    async with open_served() as served, connected(served, POST % 1000) as stream:
        before = trio.current_time()

        async def drip() -> None:
            while True:
                await trio.sleep(limits.BODY_SECS / 4)
                await stream.send_all(b" ")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            late = await stream.receive_some()
            nursery.cancel_scope.cancel()

        assert late.startswith(b"HTTP/1.1 408")
        assert trio.current_time() - before < 1.5 * limits.BODY_SECS


@pytest.mark.parametrize(
    "head", [POST % (20 << 20), GET % (b"/v1/statistics", b"Content-Length: %d\r\n" % (20 << 20))]
)
async def test_a_body_that_nobody_wants_is_no_burden(
    head: bytes, autojump_clock: MockClock
) -> None:
    """Its answer is sent, even if never fully read; then nothing is left of it."""
    async with open_served() as served:
        before = await quiet(served)
        answers = []
        for _ in range(3):
            async with connected(served, head) as stream:

                async def push(stream: trio.SocketStream = stream) -> None:
                    try:
                        await stream.send_all(bytes(5 << 20))
                    except trio.BrokenResourceError:
                        pass

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(push)
                    answers.append((await stream.receive_some())[:12])
                    nursery.cancel_scope.cancel()
        after = await quiet(served)

    assert [b"HTTP/1.1 413" if head.startswith(b"POST") else b"HTTP/1.1 200"] * 3 == answers
    assert before == after


async def test_a_thousand_clients_that_vanish_leave_nothing(autojump_clock: MockClock) -> None:
    """In the middle of events and of a log."""
    async with open_served() as served:
        job = await served.submit("sleep 100000")
        await served.started(job["id"])
        before = await quiet(served)
        for _ in range(10):
            async with AsyncExitStack() as clients:
                for path in ("log?follow=true", "events") * 50:
                    request = GET % (f"/v1/jobs/{job['id']}/{path}".encode(), b"")
                    await clients.enter_async_context(connected(served, request))
                await trio.sleep(1)
        after = await quiet(served)
        await served.orchestrator.cancel([job["id"]], now=True)

    assert before == after
