"""Limits requests: the size of a body, the time to send it, and how many are served at once.

Streams and large downloads last as long as a job, or as long as the client likes. They have a limit
of their own, so that they do not keep out short requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs

import trio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.service.problems import Problem, problem
from orchestrator.units import size

MAX_BODY_BYTES = 4 << 20
BODY_SECS = 30.0
# At once: requests that read, requests that change something, and streams.
MAX_REQUESTS = 512
MAX_CHANGES = 512
MAX_STREAMS = 512
_SCOPE_KEY = "pikaci.held"


@dataclass
class _Kind:
    """The number of requests of one kind in progress."""

    words: str
    count: int = 0

    def take(self, most: int) -> None:
        if self.count >= most:
            raise Problem(
                503, f"{most} {self.words} are in progress", resolution="try again in a few seconds"
            )
        self.count += 1


class _Held:
    """What one request counts as."""

    def __init__(self, kind: _Kind, streams: _Kind, most_streams: int) -> None:
        self._kind: _Kind | None = kind
        self._streams = streams
        self._most_streams = most_streams

    def last(self) -> None:
        if self.lasts:
            return
        self._streams.take(self._most_streams)
        self.release()
        self._kind = self._streams

    @property
    def lasts(self) -> bool:
        return self._kind is self._streams

    def release(self) -> None:
        if self._kind is not None:
            self._kind.count -= 1
            self._kind = None


def count_as_stream(request: Request) -> None:
    """Count the request as a stream, once. `Problem` if there are too many."""
    held: _Held = request.scope[_SCOPE_KEY]
    held.last()


async def read_form(request: Request, most: int) -> dict[str, list[str]]:
    """Read the fields of a form of at most `most` bytes. `Problem` if it is larger or too slow."""
    body = b""
    too_large = Problem(413, f"the form is larger than {size(most)}")
    if int(request.headers.get("Content-Length", "0")) > most:
        raise too_large
    with trio.move_on_after(BODY_SECS) as scope:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise too_large
    if scope.cancelled_caught:
        raise Problem(408, f"the form did not arrive within {BODY_SECS:g} s")
    return parse_qs(body.decode("utf-8", "replace"))


class _BodyTooLarge(Exception):
    pass


class _TooSlow(Exception):
    pass


class Limits:
    """ASGI middleware that answers 413, 408 or 503 to requests beyond the limits.

    At most `streams` streams are served at once, by default `MAX_STREAMS`. `/healthz` is answered
    however busy the service is.
    """

    def __init__(self, app: ASGIApp, streams: int | None = None) -> None:
        self._app = app
        self._most_streams = streams
        self._reads = _Kind("requests")
        self._changes = _Kind("submissions and cancellations")
        self._streams = _Kind("streams and downloads")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        changes = scope["method"] not in ("GET", "HEAD")
        kind = self._changes if changes else self._reads
        try:
            kind.take(MAX_CHANGES if changes else MAX_REQUESTS)
        except Problem as busy:
            await problem(busy, scope)(scope, receive, send)
            return
        streams = MAX_STREAMS if self._most_streams is None else self._most_streams
        held = _Held(kind, self._streams, streams)
        try:
            await self._limited({**scope, _SCOPE_KEY: held}, receive, send, held)
        finally:
            held.release()

    async def _limited(self, scope: Scope, receive: Receive, send: Send, held: _Held) -> None:
        taken = 0
        begun = whole = False
        declared = int(Headers(scope=scope).get("Content-Length", "0"))
        deadline = trio.current_time() + BODY_SECS

        async def limited_receive() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()  # waits until the client disconnects
            if declared > MAX_BODY_BYTES:
                raise _BodyTooLarge
            with trio.move_on_at(deadline) as scope:
                message = await receive()
            if scope.cancelled_caught:
                raise _TooSlow
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > MAX_BODY_BYTES:
                raise _BodyTooLarge
            return message

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = True
            if not (message.get("more_body") or held.lasts or message["type"].endswith("start")):
                held.release()  # the answer is complete; only the client still has to read it
            await send(message)

        try:
            await self._app(scope, limited_receive, watched_send)
        except* _BodyTooLarge:
            if not begun:
                error = Problem(413, f"the body is larger than {size(MAX_BODY_BYTES)}")
                await problem(error, scope)(scope, receive, send)
        except* _TooSlow:
            if not begun:
                error = Problem(408, f"the body did not arrive within {BODY_SECS:g} s")
                await problem(error, scope)(scope, receive, send)
