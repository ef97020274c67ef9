"""The connections of a listener: how many there are, and which one gives way to a new one."""

from __future__ import annotations

import logging
import socket

import trio
from starlette.types import ASGIApp

from orchestrator.service.connection import Connection

# For each listener.
MAX_CONNECTIONS = 1024
STOP_SECS = 3.0
# Of those that are sent away, so many are told so.
MAX_TOLD = 16
TOLD_SECS = 2.0
# Without a free descriptor, or memory, the next connection is taken after so long.
PAUSE_SECS = 0.1

_TOO_MANY = b"HTTP/1.1 503 \r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_log = logging.getLogger(__name__)


async def serve_connections(
    app: ASGIApp, listener: socket.socket, stopping: trio.Event, *, most: int | None = None
) -> None:
    """Answer until it is `stopping`; then finish what is being answered, in `STOP_SECS` at most.

    There are `most` connections at once, `MAX_CONNECTIONS` when not given. One more takes the
    place of the one whose client has been awaited longest. When all are being answered, it is
    sent away. When this is cancelled, nothing is finished. The listener is closed.
    """
    acceptor = _Acceptor(app, stopping, most)
    async with (
        trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as found,
        trio.open_nursery() as handlers,
    ):
        async with trio.open_nursery() as accepting:
            accepting.start_soon(acceptor.accept_all, found, handlers)
            await stopping.wait()
            accepting.cancel_scope.cancel()
        await found.aclose()
        handlers.cancel_scope.deadline = trio.current_time() + STOP_SECS
        acceptor.stop()


class _Acceptor:
    def __init__(self, app: ASGIApp, stopping: trio.Event, most: int | None) -> None:
        self._app = app
        self._stopping = stopping
        self._most = most
        self._connections: dict[Connection, None] = {}  # as they came
        self._told = 0

    def stop(self) -> None:
        """End those at once that are between two requests."""
        for connection in self._connections:
            connection.stop()

    async def accept_all(self, listener: trio.SocketListener, handlers: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                # Most likely all descriptors are in use.
                _log.warning("a connection cannot be accepted: %s", error)
                self._make_room()
                await trio.sleep(PAUSE_SECS)
                continue
            if len(self._connections) < self._limit or self._make_room():
                connection = Connection(self._app, stream, self._stopping)
                self._connections[connection] = None
                handlers.start_soon(self._serve, connection)
                continue
            _log.warning("a connection is sent away: all %d are being answered", self._limit)
            if self._told < MAX_TOLD:
                self._told += 1
                handlers.start_soon(self._send_away, stream)
            else:
                stream.socket.close()

    @property
    def _limit(self) -> int:
        return MAX_CONNECTIONS if self._most is None else self._most

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._connections.pop(connection, None)

    def _make_room(self) -> bool:
        """Cut the connection whose client has been awaited longest; False when there is none."""
        waiting = [found for found in self._connections if found.waits_since is not None]
        if not waiting:
            return False
        _log.info("a connection that waits for its client is cut, for a new one")
        longest = min(waiting, key=lambda found: found.waits_since or 0.0)
        longest.cut()
        del self._connections[longest]
        return True

    async def _send_away(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(TOLD_SECS):
                await stream.send_all(_TOO_MANY)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.socket.close()
            self._told -= 1
