"""What a request may cost: bytes of its body, time to send it; and how many there are at once.

Requests that last as long as a job, or as their client likes, have a bound of their own, so that
they leave room for those that are answered at once.
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
# At once: of those that read, of those that change something, and of those that last.
MAX_REQUESTS = 512
MAX_CHANGES = 512
MAX_STREAMS = 512
_SCOPE_KEY = "pikaci.held"


@dataclass
class _Kind:
    """The requests of one kind that are being answered."""

    words: str
    count: int = 0

    def take(self, most: int) -> None:
        if self.count >= most:
            raise Problem(
                503, f"{most} {self.words} are being answered", resolution="try again in a while"
            )
        self.count += 1


class _Held:
    """What one request holds of the bounds."""

    def __init__(self, kind: _Kind, streams: _Kind, most_streams: int) -> None:
        self._kind: _Kind | None = kind
        self._streams = streams
        self._most_streams = most_streams

    def last(self) -> None:
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
    """Count the request as one that lasts; a `Problem` when there are as many as may be."""
    held: _Held = request.scope[_SCOPE_KEY]
    held.last()


async def read_form(request: Request, most: int) -> dict[str, list[str]]:
    """The fields of a form that has `most` bytes; a `Problem` for one that is large or slow."""
    body = b""
    too_large = Problem(413, f"the form has more than {size(most)}")
    if int(request.headers.get("Content-Length", "0")) > most:
        raise too_large
    with trio.move_on_after(BODY_SECS) as scope:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise too_large
    if scope.cancelled_caught:
        raise Problem(408, f"the form did not come within {BODY_SECS:g} s")
    return parse_qs(body.decode("utf-8", "replace"))


class _BodyTooLarge(Exception):
    pass


class _TooSlow(Exception):
    pass


class Limits:
    """ASGI middleware: 413, 503 and 408 for who wants too much.

    There are `streams` that last at once, `MAX_STREAMS` when not given. `/healthz` is answered
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
                return await receive()  # waits for the client to go away
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
                held.release()  # it is made, and waits for its client alone
            await send(message)

        try:
            await self._app(scope, limited_receive, watched_send)
        except* _BodyTooLarge:
            if not begun:
                error = Problem(413, f"the body has more than {size(MAX_BODY_BYTES)}")
                await problem(error, scope)(scope, receive, send)
        except* _TooSlow:
            if not begun:
                error = Problem(408, f"the body did not come within {BODY_SECS:g} s")
                await problem(error, scope)(scope, receive, send)
