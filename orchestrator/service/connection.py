"""One connection: requests are read from it, and answered by an ASGI application.

Whatever waits for the client has a deadline. A fault of the client's ends its connection, and is
no line in the log.
"""

from __future__ import annotations

import logging

import h11
import trio
from starlette.types import ASGIApp

from orchestrator.service.exchange import Exchange, refusal
from orchestrator.service.http1 import BadRequest, Wire

# For a request's head, from its first byte or from the connection's begin.
HEAD_SECS = 5.0
# Between two requests. Clients of ours let go of a connection sooner.
IDLE_SECS = 15.0
# A client that takes no piece of an answer for so long is disconnected.
SEND_SECS = 60.0
PIECE_BYTES = 1 << 16
LINGER_SECS = 2.0
_log = logging.getLogger(__name__)


class Connection:
    """A client's stream. `run` it once; `cut` ends it from another task."""

    def __init__(self, app: ASGIApp, stream: trio.SocketStream, stopping: trio.Event) -> None:
        self._app = app
        self.stream = stream
        self.stopping = stopping
        self.wire = Wire()
        # From when on the client is to send something; None while it is answered.
        self.waits_since: float | None = trio.current_time()
        self._scope = trio.CancelScope()
        self._between: trio.CancelScope | None = None

    def cut(self) -> None:
        """Close it now, under whoever sends."""
        self._scope.cancel()
        self.stream.socket.close()

    def stop(self) -> None:
        """End it when nothing of it is being answered."""
        if self._between is not None:
            self._between.cancel()

    async def run(self) -> None:
        """Answer until one side has enough. The stream is then closed."""
        try:
            with self._scope:
                if await self._serve():
                    await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # a client that went away
        except Exception:
            _log.exception("a bug ended a connection")
        finally:
            self.stream.socket.close()

    async def _serve(self) -> bool:
        """Whether the client may still be sending when this has ended in good order."""
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
                _log.info("refused what is no HTTP/1.1", extra={"about": about})
                await self.send(refusal(self.wire, error))
                return True
            if not self.wire.reusable:
                return self.wire.body_unread
            self.wire.next_request()
            secs = IDLE_SECS
        return False

    async def _next_request(self, secs: float) -> h11.Request | None:
        """None when the client sends no other one, or is wanted to send none."""
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
            raise BadRequest(f"the request's head did not come within {HEAD_SECS:g} s", 408)
        return None

    async def receive(self) -> bytes:
        """What comes next, which the wire has then; nothing at the stream's end."""
        data = bytes(await self.stream.receive_some(PIECE_BYTES))
        self.wire.feed(data)
        return data

    async def send(self, data: bytes) -> None:
        """Send it whole. `trio.BrokenResourceError` when the client takes none of it."""
        view = memoryview(data)
        for start in range(0, len(data), PIECE_BYTES):
            with trio.move_on_after(SEND_SECS) as sending:
                await self.stream.send_all(view[start : start + PIECE_BYTES])
            if sending.cancelled_caught:
                raise trio.BrokenResourceError("the client takes nothing of its answer")

    async def _linger(self) -> None:
        """Throw away what still comes, for a moment: else the kernel throws away the answer."""
        self.waits_since = trio.current_time()
        with trio.move_on_after(LINGER_SECS):
            await self.stream.send_eof()
            while await self.stream.receive_some(PIECE_BYTES):
                pass
