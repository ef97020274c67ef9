"""An answer sent before the request's body was read costs the client no later request."""

from __future__ import annotations

from functools import partial

import httpx
import pytest
import trio

from orchestrator.service import limits
from orchestrator.service.token import RequireToken
from tests.service.served import Served, open_served

TOKEN = "a-token-of-some-length"
BEARER = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"workspace": "/"}'


def head(target: bytes, *headers: bytes, length: int = len(BODY)) -> bytes:
    lines = b"".join(headers)
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % (target, length)
        + lines
        + b"\r\n"
    )


EARLY = {
    "no token": (head(b"/v1/runs", JSON), 401),
    "another origin": (head(b"/login", b"Origin: http://elsewhere\r\n"), 403),
    "no such resource": (head(b"/v1/nothing", BEARER), 404),
    "another method": (head(b"/v1/jobs", BEARER), 405),
    "another type": (head(b"/v1/runs", BEARER), 415),
    "no such job": (head(b"/v1/jobs/none/cancel", BEARER, JSON), 404),
    "an empty key": (head(b"/v1/runs", BEARER, JSON, b"Idempotency-Key:\r\n"), 400),
    "a body for nobody": (head(b"/healthz", BEARER).replace(b"POST", b"GET", 1), 200),
    "too much": (head(b"/v1/runs", BEARER, JSON, length=limits.MAX_BODY_BYTES + 1), 413),
    "a form that is too large": (
        head(b"/login", b"Origin: http://localhost\r\n", length=1 << 20),
        413,
    ),
    "no http": (head(b"/v1/runs", b"Transfer-Encoding: chunked\r\n"), 400),
}


async def answer(stream: trio.SocketStream) -> bytes:
    """The next answer, which has a length."""
    found = b""
    with trio.fail_after(30):
        while True:
            lines, found_end, rest = found.partition(b"\r\n\r\n")
            lengths = [
                int(line.split(b":")[1])
                for line in lines.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ]
            if found_end and len(rest) >= (lengths[0] if lengths else 0):
                return found
            part = await stream.receive_some()
            assert part, f"the connection ended in an answer: {found!r}"
            found += part


def closes(found: bytes) -> bool:
    return b"connection: close" in found.partition(b"\r\n\r\n")[0].lower()


async def ask_twice(served: Served, request: bytes, *, body: bytes, late: bool) -> bytes:
    """Send a request and, if the answer allows it, another one; return the first answer."""
    async with await trio.open_unix_socket(str(served.socket)) as stream:
        await stream.send_all(request if late else request + body)
        first = await answer(stream)
        if closes(first):
            # It is not cut off while its client still sends.
            await stream.send_all(body)
            with trio.fail_after(30):
                assert b"" == await stream.receive_some()
            return first
        if late:
            await stream.send_all(body)
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await answer(stream)).startswith(b"HTTP/1.1 200")
        return first


@pytest.mark.parametrize("late", [False, True], ids=["with it", "before it"])
@pytest.mark.parametrize("name", EARLY)
async def test_an_early_answer_says_when_it_is_the_last(name: str, late: bool) -> None:
    """Whether the body arrives with the head, or after the answer."""
    request, status = EARLY[name]
    async with open_served(wrap=partial(RequireToken, token=TOKEN)) as served:
        first = await ask_twice(served, request, body=BODY, late=late)

    assert b"HTTP/1.1 %d" % status == first[:12]


async def test_a_body_that_has_come_is_no_reason_to_close() -> None:
    """A refused form costs its browser no connection."""
    request, _ = EARLY["no token"]
    async with open_served(wrap=partial(RequireToken, token=TOKEN)) as served:
        first = await ask_twice(served, request, body=BODY, late=False)

    assert not closes(first)


@pytest.mark.parametrize("late", [False, True], ids=["with it", "before it"])
async def test_so_do_the_answers_of_a_service_that_is_busy_or_stops(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does the check for local clients."""
    async with open_served() as served:
        elsewhere = head(b"/v1/runs", JSON).replace(b"localhost", b"elsewhere")
        local = await ask_twice(served, elsewhere, body=BODY, late=late)
        monkeypatch.setattr(limits, "MAX_CHANGES", 0)
        busy = await ask_twice(served, head(b"/v1/runs", JSON), body=BODY, late=late)

    assert (b"HTTP/1.1 403", b"HTTP/1.1 503") == (local[:12], busy[:12])


async def test_a_client_library_meets_no_dead_connection() -> None:
    """It sends head and body separately, and reuses the connection."""
    async with open_served(wrap=partial(RequireToken, token=TOKEN)) as served:
        transport = httpx.AsyncHTTPTransport(uds=str(served.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            for _ in range(300):
                refused = await http.post("/login", data={"token": TOKEN})
                assert 403 == refused.status_code
