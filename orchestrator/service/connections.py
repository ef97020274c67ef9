"""The connections of a door: how many there are, and what a client may have one wait for.

Hypercorn's trio server speaks HTTP/1 on them. What it leaves to others is here: it has no bound
on connections, shields what it sends from every cancellation, and lets an error in one connection
end them all.
"""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import Any

import h11
import msgspec
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp

from orchestrator.service.problems import MEDIA_TYPE
from orchestrator.service.types import ProblemDocument

# A door's; who comes then is sent away at once.
MAX_CONNECTIONS = 1024
# Between requests, and for a request's head to come.
IDLE_SECS = 5.0
# A client that takes no piece of an answer for so long is let go.
SEND_SECS = 60.0
PIECE_BYTES = 1 << 16
STOP_SECS = 3.0
LINGER_SECS = 2.0

_TOO_MANY = b"HTTP/1.1 503 \r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_log = logging.getLogger(__name__)


async def serve_connections(app: ASGIApp, listener: socket.socket, stopping: trio.Event) -> None:
    """Answer until it is `stopping`; then finish what is being answered, in `STOP_SECS` at most.

    When this is cancelled, nothing is finished. The listener is closed.
    """
    config = Config()
    config.keep_alive_timeout = IDLE_SECS
    config.include_server_header = False
    config.loglevel = "WARNING"
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)  # type: ignore[arg-type]
    clients: set[_Client] = set()
    door = trio.SocketListener(trio.socket.from_stdlib_socket(listener))

    async def connected(stream: trio.SocketStream) -> None:
        if len(clients) >= MAX_CONNECTIONS:
            await _send_away(stream)
            return
        client = _Client(stream)
        clients.add(client)
        try:
            with client.scope:
                await _Server(wrapped, config, context, client).run()
            if not stopping.is_set():
                await client.linger()
        except Exception:
            _log.exception("a bug ended a connection")
        finally:
            client.cut()
            clients.remove(client)

    async def cut_all() -> None:
        try:
            await stopping.wait()
            await context.terminated.set()  # who is between two requests goes at once
            await trio.sleep(STOP_SECS)
        finally:
            for client in clients:
                client.cut()

    async with trio.open_nursery() as cutting:
        cutting.start_soon(cut_all)
        async with trio.open_nursery() as handlers, trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(trio.serve_listeners, handler_nursery=handlers), connected, [door]
            )
            await stopping.wait()
            accepting.cancel_scope.cancel()
        cutting.cancel_scope.cancel()


async def _send_away(stream: trio.SocketStream) -> None:
    async with stream:
        with trio.move_on_after(IDLE_SECS):
            try:
                await stream.send_all(_TOO_MANY)
            except trio.BrokenResourceError:
                pass


class _Client:
    """A client's stream, as hypercorn uses one. Whatever waits for the client ends with a `cut`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket  # hypercorn asks it for the addresses
        self.scope = trio.CancelScope()
        self._stream = stream

    def cut(self) -> None:
        """Close it now, under whoever sends."""
        self.socket.close()
        self.scope.cancel()

    async def linger(self) -> None:
        """Throw away what still comes, for a moment: else the kernel throws away the answer."""
        with trio.move_on_after(LINGER_SECS):
            try:
                await self._stream.send_eof()
                while await self._stream.receive_some(PIECE_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def receive_some(self, max_bytes: int) -> bytes:
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            with trio.move_on_after(SEND_SECS) as sending:
                await self._stream.send_all(data[start : start + PIECE_BYTES])
            if sending.cancelled_caught:
                self.cut()
                raise trio.BrokenResourceError("the client takes nothing of its answer")

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        # Somebody may still be handing on a body that nobody has asked for.
        self.scope.cancel()


class _Server(TCPServer):
    """A connection of hypercorn's, without TLS and without other protocols.

    Clients may be silent for as long as an answer takes.
    """

    def __init__(
        self, app: ASGIWrapper, config: Config, context: WorkerContext, client: _Client
    ) -> None:
        super().__init__(app, config, context, {}, client)  # type: ignore[arg-type]

    async def run(self) -> None:
        client: trio.socket.SocketType = self.stream.socket
        try:
            async with TaskGroup() as self._task_group:
                self.protocol: Any = _Http1(
                    self.app,
                    self.config,
                    self.context,
                    self._task_group,
                    ConnectionState(self.state),
                    False,
                    parse_socket_addr(client.family, client.getpeername()),
                    parse_socket_addr(client.family, client.getsockname()),
                    self.protocol_send,
                )
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
        except* OSError:
            pass  # a client that went away
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        # When an answer's end is told, Starlette cancels whoever tells of it.
        with trio.CancelScope(shield=True):
            await super().protocol_send(event)


class _Http1(H11Protocol):
    """HTTP/1 and nothing else: who offers to go over to HTTP/2 or web sockets is not heard."""

    async def _send_error_response(self, status_code: int) -> None:
        """What is no HTTP is told of like every other problem."""
        document = ProblemDocument(
            status=status_code,
            title="this is not understood as HTTP/1.1",
            resolution="look at the request's line and at its headers",
        )
        body = msgspec.json.encode(document)
        headers = [
            ("content-type", MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=status_code, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            await self._send_h11_event(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        plain = h11.Request(
            method=request.method,
            target=request.target,
            headers=headers,
            http_version=request.http_version,
        )
        await super()._create_stream(plain)
