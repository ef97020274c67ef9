"""HTTP/1.1 without I/O: h11 parses it, and this module refuses what h11 tolerates (RFC 9112).

A connection feeds bytes in, and takes events out.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote_to_bytes

import h11
from starlette.types import Scope

from orchestrator.units import size

MAX_HEAD_BYTES = 1 << 14
# For the lines around all chunks of a body: tiny chunks cost time.
MAX_OVERHEAD_BYTES = 1 << 18
PARTS_AT_ONCE = 256
# h11 copies what it has not parsed whenever we look at it, so it gets a little at a time.
WINDOW_BYTES = 1 << 12

# A line must end with CR LF, and a field must be one line.
_SLOPPY_LINES = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)

Event = (
    h11.Request
    | h11.Data
    | h11.EndOfMessage
    | h11.ConnectionClosed
    | type[h11.NEED_DATA]
    | type[h11.PAUSED]
)


class BadRequest(Exception):
    """The client did not send valid HTTP/1.1. `status` and `reason` are for the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Wire:
    """The state of the protocol on one connection."""

    def __init__(self) -> None:
        self._begin(b"", closed=False)

    def _begin(self, came: bytes, *, closed: bool) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._ahead = bytearray(came)  # not passed to h11 yet
        self._closed = closed  # the client sends no more
        self._told_closed = False
        self._raw = bytearray()  # passed to h11, but not part of an event yet
        self._lines = bytearray()  # of a head, or around chunks
        self._overhead = 0
        self._untouched = True

    @property
    def pending(self) -> int:
        """How many received bytes are not parsed yet."""
        return len(self._ahead) + len(self._raw)

    @property
    def begun(self) -> bool:
        """Whether part of a request's head has arrived."""
        return self.pending > 0 and self._h11.their_state is h11.IDLE

    @property
    def body_unread(self) -> bool:
        """Whether the request's body is not fully read."""
        return self._h11.their_state is h11.SEND_BODY

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body."""
        return self._h11.they_are_waiting_for_100_continue

    @property
    def answered(self) -> bool:
        """Whether the answer is complete."""
        return self._h11.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    @property
    def reusable(self) -> bool:
        """Whether the exchange is complete, and neither side wants to close the connection."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def feed(self, data: bytes) -> None:
        """Take received bytes; empty bytes mean that the client sends no more."""
        self._ahead += data
        self._closed = self._closed or not data

    def next_event(self) -> Event:
        """The next part of a request, `NEED_DATA`, or `ConnectionClosed`. Raises `BadRequest`."""
        try:
            event: Any = self._h11.next_event()
            while event is h11.NEED_DATA and self._hand_on():
                event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(str(error), error.error_status_hint) from None
        self._take_lines()
        if isinstance(event, h11.Request):
            self._check_lines()
            _check(event)
        elif isinstance(event, h11.Data):
            self._overhead += len(self._lines) - len(event.data)
            if self._overhead > MAX_OVERHEAD_BYTES:
                raise BadRequest("the chunks of the body are too small")
            self._lines.clear()
        elif isinstance(event, h11.EndOfMessage):
            self._check_lines()
        return event  # type: ignore[no-any-return]

    def next_of_body(self) -> tuple[bytes, bool] | None:
        """The next piece of the body, and whether it is the last; None if none has arrived."""
        found = bytearray()
        for _ in range(PARTS_AT_ONCE):
            event = self.next_event()
            if isinstance(event, h11.EndOfMessage):
                return bytes(found), True
            if not isinstance(event, h11.Data):
                break
            found += event.data
        return (bytes(found), False) if found else None

    def discard_body(self) -> None:
        """Skip what has arrived of the request's body, if that is not much."""
        try:
            self.next_of_body()
        except BadRequest:
            pass  # the connection is closed after the answer

    def send(self, event: h11.Event) -> bytes:
        """Encode a part of an answer. `h11.LocalProtocolError` if it is not valid at this point."""
        return self._h11.send(event) or b""

    def next_request(self) -> None:
        """Start the next exchange, after one that left this `reusable`."""
        self._begin(bytes(self._raw + self._ahead), closed=self._closed)

    def _hand_on(self) -> bool:
        """Pass a little more to h11; False if there is nothing."""
        if self._untouched and self._ahead:
            self._untouched = False
            if self._ahead.startswith(b"\r\n"):
                del self._ahead[:2]  # some clients send an extra line break after a body
        if self._ahead:
            part = bytes(self._ahead[:WINDOW_BYTES])
            del self._ahead[:WINDOW_BYTES]
            self._h11.receive_data(part)
            self._raw += part
            return True
        if self._closed and not self._told_closed:
            self._told_closed = True
            self._h11.receive_data(b"")
            return True
        return False

    def _take_lines(self) -> None:
        taken = len(self._raw) - len(self._h11.trailing_data[0])
        self._lines += self._raw[:taken]
        del self._raw[:taken]

    def _check_lines(self) -> None:
        if len(self._lines) > MAX_HEAD_BYTES:
            raise BadRequest(f"the head is larger than {size(MAX_HEAD_BYTES)}", 431)
        if _SLOPPY_LINES.search(self._lines):
            raise BadRequest("a line does not end with CR LF, or a header is folded")
        self._lines.clear()


def _check(request: h11.Request) -> None:
    names = [name for name, _ in request.headers]
    if request.http_version not in (b"1.0", b"1.1"):
        raise BadRequest("the version is not HTTP/1.1")
    if b"transfer-encoding" in names:
        # A proxy in between might believe the other one of the two.
        if b"content-length" in names:
            raise BadRequest("the request has both Content-Length and Transfer-Encoding")
        if request.http_version == b"1.0":
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
    hosts = [value for name, value in request.headers if name == b"host"]
    if len(hosts) > 1 or any(_HOST.fullmatch(host) is None for host in hosts):
        raise BadRequest("Host does not name exactly one host")
    target = request.target
    if request.method == b"CONNECT":
        raise BadRequest("this is not a proxy", 501)
    if not target.startswith(b"/") and target != b"*":
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or _HOST.fullmatch(absolute[1]) is None:
            raise BadRequest("the target is neither a path nor an HTTP URL")


def scope_of(request: h11.Request, client: Any, server: Any) -> Scope:
    """The ASGI scope of a request; `client` and `server` are addresses, or None."""
    headers = list(request.headers)
    target = request.target
    if absolute := _ABSOLUTE.fullmatch(target):
        # An absolute target overrides Host.
        headers = [(b"host", absolute[1]), *(pair for pair in headers if pair[0] != b"host")]
        target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        # Since 2.3, Starlette's streams watch for clients that disconnect.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
    }


def response(status: int, headers: list[tuple[bytes, bytes]], *, close: bool) -> h11.Response:
    """The head of an answer. With `close`, it announces the end of the connection."""
    named = [pair for pair in headers if pair[0].lower() != b"connection"]
    named.append((b"date", formatdate(usegmt=True).encode("ascii")))
    if close:
        named.append((b"connection", b"close"))
    return h11.Response(status_code=status, headers=named)
