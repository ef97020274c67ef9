"""One connection: reads requests, and has an ASGI application answer them.

Every wait for the client has a deadline. An error of the client closes its connection.
"""

from __future__ import annotations

import logging

import h11
import trio
from starlette.types import ASGIApp

from orchestrator.service.exchange import Exchange, refusal
from orchestrator.service.http1 import BadRequest, Wire

# For a request's head, from its first byte, or from the start of the connection.
HEAD_SECS = 5.0
# Between two requests. Our own client closes idle connections sooner.
IDLE_SECS = 15.0
# A client that does not read a piece of an answer within this time is disconnected.
SEND_SECS = 60.0
PIECE_BYTES = 1 << 16
LINGER_SECS = 2.0
_log = logging.getLogger(__name__)


class Connection:
    """A client's stream. `run` it once; `cut` closes it from another task."""

    def __init__(self, app: ASGIApp, stream: trio.SocketStream, stopping: trio.Event) -> None:
        self._app = app
        self.stream = stream
        self.stopping = stopping
        self.wire = Wire()
        # Since when we wait for the client to send something; None while we answer.
        self.waits_since: float | None = trio.current_time()
        self._scope = trio.CancelScope()
        self._between: trio.CancelScope | None = None

    def cut(self) -> None:
        """Close it now, even in the middle of an answer."""
        self._scope.cancel()
        self.stream.socket.close()

    def stop(self) -> None:
        """Close it if it is between two requests."""
        if self._between is not None:
            self._between.cancel()

    async def run(self) -> None:
        """Serve until either side closes the connection; then close the stream."""
        try:
            with self._scope:
                if await self._serve():
                    await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client disconnected
        except Exception:
            _log.exception("a bug closed a connection")
        finally:
            self.stream.socket.close()

    async def _serve(self) -> bool:
        """Serve requests; return whether the client may still be sending after the last answer."""
        secs = HEAD_SECS
        while not self.stopping.is_set():
            try:
                request = await self._next_request(secs)
                if request is None:
                    return False
                self.waits_since = None
                if not await Exchange(self, request).run(self._app):
                    return False
            except BadRequest as error:
                self.waits_since = trio.current_time()
                about = {"status": error.status, "title": error.reason}
                _log.info("refused invalid HTTP/1.1", extra={"about": about})
                await self.send(refusal(self.wire, error))
                return True
            if not self.wire.reusable:
                return self.wire.body_unread
            self.wire.next_request()
            secs = IDLE_SECS
        return False

    async def _next_request(self, secs: float) -> h11.Request | None:
        """The next request; None if the client sends no more, or the service is stopping."""
        self.waits_since = trio.current_time()
        begun = self.wire.begun
        with trio.move_on_after(HEAD_SECS if begun else secs) as self._between:
            while True:
                event = self.wire.next_event()
                if isinstance(event, h11.Request):
                    self._between = None
                    return event
                if event is not h11.NEED_DATA:
                    return None
                await self.receive()
                if not begun:
                    begun = True
                    deadline = trio.current_time() + HEAD_SECS
                    self._between.deadline = min(self._between.deadline, deadline)
        self._between = None
        if self.wire.begun and not self.stopping.is_set():
            raise BadRequest(f"the request's head did not arrive within {HEAD_SECS:g} s", 408)
        return None

    async def receive(self) -> bytes:
        """Receive bytes, and feed them to `wire`; empty at the end of the stream."""
        data = bytes(await self.stream.receive_some(PIECE_BYTES))
        self.wire.feed(data)
        return data

    async def send(self, data: bytes) -> None:
        """Send all of it. `trio.BrokenResourceError` if the client is gone, or does not read."""
        view = memoryview(data)
        for start in range(0, len(data), PIECE_BYTES):
            with trio.move_on_after(SEND_SECS) as sending:
                await self.stream.send_all(view[start : start + PIECE_BYTES])
            if sending.cancelled_caught:
                raise trio.BrokenResourceError("the client does not read its answer")

    async def _linger(self) -> None:
        """Discard input for a moment; if it stayed unread, the kernel would discard the answer."""
        self.waits_since = trio.current_time()
        with trio.move_on_after(LINGER_SECS):
            await self.stream.send_eof()
            while await self.stream.receive_some(PIECE_BYTES):
                pass
