"""Whatever is sent to the service, it answers as OpenAPI says, and never with 500.

Requests are drawn from the document, and as raw bytes on a socket.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from orchestrator import JobSpec
from orchestrator.service.api import events, operations
from orchestrator.service.app import make_app
from orchestrator.service.connections import serve_connections
from orchestrator.service.openapi import openapi
from orchestrator.service.server import tcp_socket
from orchestrator.service.token import RequireToken
from orchestrator.testing import open_fake

# An event stream or a log that is followed ends when the job does.
EXAMPLES = 40
TOKEN = "a-token-of-some-length"
RAW_EXAMPLES = 400
# Not what was asked for, and not a fault of the service either.
NO_FAULT = (501, 503)


@contextmanager
def served(wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> Iterator[str]:
    """The address of a service with one job that ended, in a thread of its own."""
    ready: list[str] = []
    begun, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with open_fake() as (orchestrator, _):
            await orchestrator.submit_and_wait(JobSpec(command="echo one"))
            stopping = trio.Event()
            with tcp_socket("127.0.0.1:0") as door:
                async with trio.open_nursery() as nursery:
                    app = wrap(make_app(orchestrator))
                    nursery.start_soon(serve_connections, app, door, stopping)
                    host, port = door.getsockname()
                    ready.append(f"http://{host}:{port}")
                    begun.set()
                    await trio.to_thread.run_sync(stop.wait, abandon_on_cancel=True)
                    nursery.cancel_scope.cancel()

    thread = threading.Thread(target=partial(trio.run, main))
    thread.start()
    try:
        assert begun.wait(30)
        yield ready[0]
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, served() as found:
        # What all jobs do is told for an hour otherwise.
        patch.setattr(events, "WATCH_SECS", 0.05)
        yield found


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The address of one that asks for the token."""
    with pytest.MonkeyPatch.context() as patch, served(partial(RequireToken, token=TOKEN)) as found:
        patch.setattr(events, "WATCH_SECS", 0.05)
        yield found


DOCUMENT = msgspec.json.decode(openapi())
LABELS = [f"{method.upper()} {path}" for path, at in DOCUMENT["paths"].items() for method in at]


@cache
def drawn() -> dict[str, Any]:
    """The operations of the document as schemathesis has them, by label."""
    import schemathesis

    found = schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
    return {operation.label: operation for operation in (result.ok() for result in found)}


# On one worker: to load schemathesis takes a second.
@pytest.mark.xdist_group("schemathesis")
@pytest.mark.parametrize("label", LABELS)
def test_nothing_answers_500(label: str, address: str) -> None:
    """Answers have a status, a media type and a schema from the document."""
    from schemathesis import Case, GenerationMode, checks
    from schemathesis.specs.openapi import checks as of_openapi

    assert set(LABELS) == drawn().keys()
    operation = drawn()[label]
    all_checks = [
        checks.not_a_server_error,
        of_openapi.status_code_conformance,
        of_openapi.content_type_conformance,
        of_openapi.response_schema_conformance,
    ]

    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE))
    def fuzz(case: Case) -> None:
        response = case.call(base_url=address, timeout=30)
        case.validate_response(response, checks=all_checks)

    fuzz()


PATHS = [
    *(operation.path.encode() for operation in operations.OPERATIONS),
    b"/",
    b"/runs/{run}",
    b"/jobs/{job}",
    b"/jobs/{job}/cancel",
    b"/parts/board",
    b"/parts/jobs/{job}",
    b"/static/{version}/style.css",
    b"/login",
    b"/metrics",
    b"/nothing",
]
NAMES = [
    b"Host",
    b"Origin",
    b"Sec-Fetch-Site",
    b"Cookie",
    b"Authorization",
    b"Accept",
    b"Range",
    b"If-None-Match",
    b"Last-Event-ID",
    b"Idempotency-Key",
    b"Content-Type",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Expect",
    b"Upgrade",
    b"Connection",
    b"X-Other",
]
VALUES = [
    b"",
    b"[",
    b"http://[",
    b"localhost:99999",
    b"\xfc",
    b"null",
    b"bytes=9-1",
    b"bytes=--1",
    b"bytes=" + b"9" * 40 + b"-",
    b"9" * 5000,
    b"-1",
    b"1e5",
    b"1." + b"9" * 18,
    b"text/html",
    b"application/json; charset=utf-7",
    b"application/json",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=\xff",
    b"chunked",
    b"100-continue",
    b"websocket",
    b'pikaci=\xff; a="\\377; =;',
    b"Bearer \xff",
    b"same-origin",
]
IN_A_JOB = [
    b'"secrets": {"A": {"file": "/tmp\\u0000x"}}',
    b'"secrets": {"A": {"file": "/dev/zero"}}',
    b'"mounts": [{"source": "/\\u0000", "path": "/a"}]',
    b'"mounts": [{"source": "/tmp", "path": "/\\u0000"}]',
    b'"env": {"A": "\\u0000"}',
    b'"env": {"\\u0000": ""}',
    b'"image": "\\ud800"',
    b'"artifacts": ["[", "\\u0000"]',
    b'"cpus": 1e999',
    b'"timeout_secs": %s' % (b"9" * 5000),
    b'"priority": -1e5',
    b'"description": "\xfc"',
    b'"deadlines": %s' % (b"[" * 5000),
]
IN_A_RUN = [
    b'"snapshot": {"hash": "%s"}' % (b"0" * 64),
    b'"snapshot": {"hash": "../.."}',
    b'"include": ["[", "**/**/**", "' + b"*" * 60 + b'a"]',
    b'"include": ["\\u0000"]',
    b'"jobs": %s' % (b'{"a":' * 5000),
    b'"workspace": "/\\u0000"',
    b'"workspace": "/%s"' % (b"x" * 4000),
    b'"workspace": NaN',
]
PIECES = [b"\\ud800", b"\xfc", b"\xef\xbb\xbf", b"[" * 5000, b"now=1&%ff=%zz&=&&", b"\0", b'"']


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An almost valid run, a cancellation, a form, or anything."""
    if draw(st.booleans()):
        return b"".join(
            draw(st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=4))
        )
    in_a_job = [b'"command": "true"', *draw(st.lists(st.sampled_from(IN_A_JOB), max_size=2))]
    in_a_run = [
        b'"workspace": "/proc/self/task"',
        b'"jobs": {"a": {%s}}' % b", ".join(in_a_job),
        *draw(st.lists(st.sampled_from(IN_A_RUN), max_size=2)),
    ]
    return b"{%s}" % b", ".join(in_a_run)


def raw(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The bytes of a request, as far as these make one."""
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, target, lines, body)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests that are valid except for one or two parts."""
    wrong = draw(st.sets(st.sampled_from(["path", "query", "headers", "method"]), max_size=2))
    path = draw(st.sampled_from(PATHS) | st.just(b"/v1/runs"))
    part = st.sampled_from(
        [b"x", b"%00", b"%ff", b"%zz", b"..", b"%2e%2e", b"\xe9", b"a" * 300, b""]
    )
    if "path" not in wrong:
        part = st.just(b"none.1")
    target = re.sub(rb"\{.*?\}", lambda _: draw(part), path)
    if "query" in wrong:
        asked = st.sampled_from([b"after=", b"byte=", b"limit=", b"run=%ff", *VALUES])
        target += b"?" + b"&".join(draw(st.lists(asked, min_size=1)))
    posted = path in (b"/v1/runs", b"/login") or path.endswith(b"/cancel")
    method = b"POST" if posted else b"GET"
    if "method" in wrong:
        method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"get"]))
    body = draw(bodies()) if posted else b""
    form = VALUES[16] if path == b"/login" else b"application/json"
    headers = [
        (b"Host", b"localhost"),
        (b"Origin", b"http://localhost"),
        (b"Authorization", b"Bearer " + TOKEN.encode()),
        (b"Content-Type", form),
        (b"Content-Length", b"%d" % len(body)),
    ]
    if "headers" in wrong:
        value = st.sampled_from(VALUES) | st.binary(max_size=20)
        more = draw(st.lists(st.tuples(st.sampled_from(NAMES), value), min_size=1, max_size=3))
        # In place of the right ones, or beside them.
        replaced = {name for name, _ in more} if draw(st.booleans()) else set()
        headers = [pair for pair in headers if pair[0] not in replaced] + more
    return raw(method, target, headers, body)


def statuses(address: str, request: bytes) -> list[int]:
    """Of all answers, until the service sends no more."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        try:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has heard enough
        found = b""
        try:
            while data := client.recv(1 << 16):
                found += data
        except ConnectionResetError:
            pass
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d+)", found, re.MULTILINE)]


@pytest.mark.parametrize("door", ["address", "guarded"])
def test_no_bytes_are_a_fault_of_the_service(
    door: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor an error in its log."""
    address = request.getfixturevalue(door)

    @settings(
        max_examples=RAW_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sent=requests() | st.binary(max_size=200))
    @example(raw(b"POST", b"/login", [(b"Host", b"["), (b"Origin", b"http://[")], b""))
    @example(raw(b"GET", b"/\xfc?\xfc", [(b"Host", b"a")], b""))
    def fuzz(sent: bytes) -> None:
        faults = [s for s in statuses(address, sent) if s >= 500 and s not in NO_FAULT]
        assert [] == faults
        assert [] == [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]

    fuzz()
    assert [200] == statuses(address, raw(b"GET", b"/healthz", [(b"Host", b"a")], b""))
