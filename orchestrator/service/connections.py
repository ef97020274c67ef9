"""Accepts connections, limits their number, and closes idle ones for new ones."""

from __future__ import annotations

import logging
import socket

import trio
from starlette.types import ASGIApp

from orchestrator.service.connection import Connection

# For each listener.
MAX_CONNECTIONS = 1024
STOP_SECS = 3.0
# Refused connections that get a 503 at the same time; others are just closed.
MAX_TOLD = 16
TOLD_SECS = 2.0
# After a failed accept (no descriptors, no memory), wait this long before the next.
PAUSE_SECS = 0.1

_TOO_MANY = b"HTTP/1.1 503 \r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_log = logging.getLogger(__name__)


async def serve_connections(
    app: ASGIApp, listener: socket.socket, stopping: trio.Event, *, most: int | None = None
) -> None:
    """Serve until `stopping` is set; then finish answers in progress, within `STOP_SECS`.

    There are at most `most` connections at once, by default `MAX_CONNECTIONS`. One more closes the
    connection whose client has kept us waiting longest; if there is none, it gets 503. The listener
    is closed at the end. A cancellation drops answers in progress.
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
        self._connections: dict[Connection, None] = {}  # in order of arrival
        self._told = 0

    def stop(self) -> None:
        """Close the connections that are between two requests."""
        for connection in self._connections:
            connection.stop()

    async def accept_all(self, listener: trio.SocketListener, handlers: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                # Most likely, all descriptors are in use.
                _log.warning("a connection cannot be accepted: %s", error)
                self._make_room()
                await trio.sleep(PAUSE_SECS)
                continue
            if len(self._connections) < self._limit or self._make_room():
                connection = Connection(self._app, stream, self._stopping)
                self._connections[connection] = None
                handlers.start_soon(self._serve, connection)
                continue
            _log.warning("refused a connection: all %d are busy", self._limit)
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
        """Close the connection that has waited longest for its client; False if none waits."""
        waiting = [found for found in self._connections if found.waits_since is not None]
        if not waiting:
            return False
        _log.info("closed an idle connection, for a new one")
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
