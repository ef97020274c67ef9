"""What the service accepts as HTTP/1.1 (RFC 9112), and where each request ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.service.connections import serve_connections
from orchestrator.service.server import tcp_socket

SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes the request."""
    request = Request(scope, receive)
    body = await request.body()
    found = b"%s %s %s " % (scope["method"].encode(), scope["path"].encode(), scope["query_string"])
    await Response(found + request.headers.get("host", "").encode() + b" " + body)(
        scope, receive, send
    )


@asynccontextmanager
async def serving(app: object = echo) -> AsyncIterator[tuple[str, int]]:
    """The address of a service of one application."""
    with tcp_socket("127.0.0.1:0") as door:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connections, app, door, trio.Event())
            yield door.getsockname()
            nursery.cancel_scope.cancel()


async def answers_to(address: tuple[str, int], *pieces: bytes) -> list[bytes]:
    """The answers; each piece is sent separately."""
    async with await trio.open_tcp_stream(*address) as stream:
        found = b""

        async def read() -> None:
            nonlocal found
            try:
                while part := await stream.receive_some():
                    found += part
            except trio.BrokenResourceError:
                pass

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                for piece in pieces:
                    try:
                        await stream.send_all(piece)
                    except trio.BrokenResourceError:
                        break
                    await trio.sleep(0.01)
    return [b"HTTP/1.1 " + part for part in found.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: [\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n", 400),
        (b"GET /\xfc HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: b\n\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: b\r\n c\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", 431),
    ],
)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "in pieces"])
async def test_what_is_malformed_is_refused_and_ends_the_connection(
    request_: bytes, status: int, cut: bool
) -> None:
    """What follows is not read as a request: nobody knows where it begins."""
    middle = len(request_) // 2
    pieces = (request_[:middle], request_[middle:]) if cut else (request_,)
    async with serving() as address:
        found = await answers_to(address, *pieces[:-1], pieces[-1] + SECOND)

    assert [b"HTTP/1.1 %d" % status] == [answer[:12] for answer in found]
    assert b"application/problem+json" in found[0]
    assert b"connection: close" in found[0].lower()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"GET /a%2Fb%ff%zz?c=%ff HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a/b\ufffd%zz c=%ff a "),
        (b"GET http://B:80/c?d HTTP/1.1\r\nHost: a\r\n\r\n", "GET /c d B:80 "),
        (b"GET http://b?d HTTP/1.1\r\nHost: a\r\n\r\n", "GET / d b "),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *  a "),
        (b"GET / HTTP/1.1\r\nhOST:a\r\n\r\n", "GET /  a "),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /   "),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /  a "),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "POST /  a abc"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na\r\n", "POST /  a a"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
            b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nTrailer: x\r\n\r\n",
            "POST /  a abc",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", "POST /  a abc"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", "GET /  a "),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "GET /  a "),
    ],
)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "in pieces"])
async def test_requests_are_answered_in_their_order(request_: bytes, words: str, cut: bool) -> None:
    """The next request may have arrived already."""
    middle = len(request_) // 2
    pieces = (request_[:middle], request_[middle:]) if cut else (request_,)
    async with serving() as address:
        first, second, third = await answers_to(
            address,
            *pieces[:-1],
            pieces[-1] + SECOND.replace(b"Connection: close\r\n", b"") + SECOND,
        )

    assert first.startswith(b"HTTP/1.1 200")
    assert words == first.split(b"\r\n\r\n", 1)[1].decode()
    assert second.endswith(b"GET /second  a ")
    assert third.endswith(b"GET /second  a ")


async def test_a_client_of_http_1_0_is_answered_and_let_go() -> None:
    """Without chunks, which it does not know."""
    async with serving() as address:
        (answer,) = await answers_to(address, b"GET /a HTTP/1.0\r\n\r\n" + SECOND)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"GET /a   ")


async def test_head_has_no_body_and_the_connection_goes_on() -> None:
    """Its headers are those of GET."""
    async with serving() as address:
        head, second = await answers_to(address, b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n" + SECOND)

    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 11" in head
    assert second.endswith(b"GET /second  a ")


async def test_a_body_is_asked_for_when_it_is_wanted() -> None:
    """With 100 Continue, once, to clients that wait for it."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with serving() as address:
        go_on, answer, second = await answers_to(address, head, b"abc" + SECOND)

    assert go_on.startswith(b"HTTP/1.1 100")
    assert answer.endswith(b"abc")
    assert second.endswith(b"GET /second  a ")


async def test_curl_gets_an_answer_each_way() -> None:
    """It sends 100-continue, chunks and HTTP/1.0 as others do."""
    async with serving() as (host, port):
        for options in (
            [],
            ["-0"],
            ["-H", "Expect: 100-continue"],
            ["-H", "Transfer-Encoding: chunked"],
        ):
            done = await trio.run_process(
                ["curl", "-sS", *options, "-d", "@-", f"http://{host}:{port}/a"],
                stdin=b"x" * 100_000,
                capture_stdout=True,
            )
            assert done.stdout.endswith(b" " + b"x" * 100_000), options


@pytest.mark.parametrize(("count", "status"), [(10_000, 200), (100_000, 400)])
async def test_a_body_of_tiny_chunks_has_a_bound(count: int, status: int) -> None:
    """Each of them costs the service more than its client."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving() as address:
        found = await answers_to(address, head + b"1\r\na\r\n" * count + b"0\r\n\r\n" + SECOND)

    assert found[0].startswith(b"HTTP/1.1 %d" % status)
    assert (2 if status == 200 else 1) == len(found)
