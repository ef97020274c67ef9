"""A way to a host's port that can be slow, stall, be cut, and count its bytes."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 65536
# Closing then sends RST, as a machine does that knows nothing of the connection any more.
_RESET = struct.pack("ii", 1, 0)


class Forwarder:
    """Passes connections on to `HOST:PORT`; each piece arrives `delay_secs` later.

    `sent` and `received` count what went there and came back.
    """

    def __init__(self, address: str, *, delay_secs: float = 0.0) -> None:
        host, _, port = address.rpartition(":")
        self._there = (host, int(port))
        self.delay_secs = delay_secs
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._is_stalled = False
        self._dead: set[socket.socket] = set()
        self.sent = self.received = 0
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bytes(self) -> int:
        """All that went over it, both ways."""
        return self.sent + self.received

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def cut(self) -> None:
        """Break all connections that there are."""
        for one in self._open:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RD)
            one.close()
        self._open.clear()

    def stall(self) -> None:
        """Pass nothing on, and close nothing; take connections, and say nothing.

        Those that meet the stall are dead for ever, as behind a router that has forgotten them.
        """
        self._is_stalled = True
        self._dead.update(self._open)

    def go_on(self) -> None:
        """Serve new connections again."""
        self._is_stalled = False

    def close(self) -> None:
        """Take no more connections, and break those that there are."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_stalled:
                self._open.append(near)
                continue
            try:
                far = socket.create_connection(self._there)
            except OSError:
                near.close()  # as the port of a daemon that is down
                continue
            self._open += [near, far]
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pair in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, is_sent: bool) -> None:
        """Pieces wait side by side, so that a delay costs no throughput."""
        waiting: list[tuple[float, bytes]] = []
        more = threading.Condition()

        def write() -> None:
            while True:
                with more:
                    more.wait_for(lambda: waiting)
                    due, piece = waiting.pop(0)
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    if sink in self._dead:
                        return
                    if piece:
                        sink.sendall(piece)
                    else:
                        sink.shutdown(socket.SHUT_WR)
                        return
                except OSError:
                    return

        threading.Thread(target=write, daemon=True).start()
        piece = b"-"
        while piece:
            try:
                piece = source.recv(_PIECE)
            except OSError:
                piece = b""
            if is_sent:
                self.sent += len(piece)
            else:
                self.received += len(piece)
            with more:
                waiting.append((time.monotonic() + self.delay_secs, piece))
                more.notify()


@contextmanager
def forwarder(address: str, *, delay_secs: float = 0.0) -> Iterator[Forwarder]:
    """A forwarder that is closed after the block."""
    made = Forwarder(address, delay_secs=delay_secs)
    try:
        yield made
    finally:
        made.close()
