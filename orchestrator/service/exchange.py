"""Passes one request to an ASGI application, and its answer to the connection."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import h11
import msgspec
import trio
from starlette.types import ASGIApp, Message

from orchestrator.service.http1 import BadRequest, Wire, response, scope_of
from orchestrator.service.problems import MEDIA_TYPE
from orchestrator.service.types import ProblemDocument

if TYPE_CHECKING:
    from orchestrator.service.connection import Connection

# How much of the next request is read while this one is answered.
AHEAD_BYTES = 1 << 16
_DISCONNECTED: Message = {"type": "http.disconnect"}
_log = logging.getLogger(__name__)


class Exchange:
    """One call of the application. `run` it once."""

    def __init__(self, connection: Connection, request: h11.Request) -> None:
        self._connection = connection
        self._wire = connection.wire
        self._request = request
        self._since = trio.current_time()
        self._scope = trio.CancelScope()
        self._begun = False  # the answer
        self._held = b""  # the answer's head, sent with its first piece
        self._silent = False  # the client sends no more
        self._gone = False
        self._fault: BadRequest | None = None

    async def run(self, app: ASGIApp) -> bool:
        """Answer the request; return whether the whole answer was sent.

        `BadRequest` if the request's body is invalid, and no answer has begun.
        """
        client, server = _addresses(self._connection.stream.socket)
        with self._scope:
            try:
                await app(scope_of(self._request, client, server), self._receive, self._send)
            except Exception:
                if not self._gone:
                    _log.exception("a bug in the answer to %s", self._shown())
        if self._fault is not None and not self._begun:
            raise self._fault
        if self._gone or self._fault is not None:
            return False
        if not self._begun:
            bug = BadRequest("internal error", 500)
            await self._connection.send(refusal(self._wire, bug))
            return True
        if not (self._wire.answered or self._silent):
            _log.warning("the answer to %s ended early", self._shown())
        return self._wire.answered

    async def _receive(self) -> Message:
        if not self._wire.body_unread:
            return await self._disconnected()
        self._connection.waits_since = self._since
        try:
            body, ended = await self._next_of_body()
        finally:
            self._connection.waits_since = None
        return {"type": "http.request", "body": body, "more_body": not ended}

    async def _next_of_body(self) -> tuple[bytes, bool]:
        await trio.lowlevel.checkpoint()
        try:
            while self._wire.body_unread:
                if (found := self._wire.next_of_body()) is not None:
                    return found
                if self._wire.wants_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._connection.send(self._wire.send(go_on))
                self._silent = not await self._connection.receive()
        except BadRequest as fault:
            if self._silent:
                self._gone = True
            else:
                self._fault = fault
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone = True
        else:
            return b"", True  # the answer has begun meanwhile, and the rest of the body is not read
        await self._give_up()
        raise AssertionError

    async def _disconnected(self) -> Message:
        """Return when the client is gone, or the answer is complete."""
        while not (self._silent or self._gone or self._wire.answered):
            if self._wire.pending > AHEAD_BYTES:
                await trio.sleep_forever()
            try:
                self._silent = not await self._connection.receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._gone = True
        return _DISCONNECTED

    async def _send(self, message: Message) -> None:
        try:
            if message["type"] == "http.response.start":
                data = self._head(message)
            else:
                data = self._piece(message)
        except h11.LocalProtocolError as error:
            _log.warning("the answer to %s was cut off: %s", self._shown(), error)
            self._gone = True
            await self._give_up()
            return
        if not data:
            return
        try:
            await self._connection.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone = True
            await self._give_up()

    def _head(self, message: Message) -> bytes:
        # The application that answers needs no more of the body: skip it, but do not wait for it.
        if self._wire.body_unread:
            self._wire.discard_body()
        close = self._connection.stopping.is_set() or self._wire.body_unread
        headers = list(message.get("headers", ()))
        head = self._wire.send(response(message["status"], headers, close=close))
        self._begun = True
        if any(name == b"content-length" for name, _ in headers):
            self._held = head
            return b""
        return head  # of a stream: its first piece may take a while

    def _piece(self, message: Message) -> bytes:
        held, self._held = self._held, b""
        body: bytes = message.get("body", b"")
        if body and self._request.method != b"HEAD":
            held += self._wire.send(h11.Data(data=body))
        if not message.get("more_body", False):
            held += self._wire.send(h11.EndOfMessage())
        return held

    async def _give_up(self) -> None:
        """Cancel the application: nothing that it sends can reach the client any more."""
        self._scope.cancel()
        await trio.sleep_forever()

    def _shown(self) -> str:
        return f"{self._request.method.decode()} {self._request.target.decode()[:200]}"


def refusal(wire: Wire, error: BadRequest) -> bytes:
    """The answer to invalid HTTP; the connection is closed after it."""
    words = "" if error.status == 500 else "this is not valid HTTP/1.1: "
    document = ProblemDocument(
        status=error.status,
        title=f"{words}{error.reason}",
        resolution="check the request line, the headers and the encoding of the body",
    )
    body = msgspec.json.encode(document)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    parts: tuple[h11.Event, ...] = (
        response(error.status, headers, close=True),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
    return b"".join(wire.send(part) for part in parts)


def _addresses(client: Any) -> tuple[Any, Any]:
    """The addresses of the client and the server; None on a unix socket."""
    if client.family == socket.AF_UNIX:
        return None, None
    try:
        return client.getpeername()[:2], client.getsockname()[:2]
    except OSError:  # the client is gone
        return None, None
