"""HTTP/1.1 from the wire: h11 reads it, and what h11 forgives is refused here (RFC 9112).

Nothing is awaited here. A connection feeds bytes, and takes events.
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
# Around the data of all chunks: each part of a body has its price.
MAX_OVERHEAD_BYTES = 1 << 18
PARTS_AT_ONCE = 256
# h11 shows what it has not read by copying it.
WINDOW_BYTES = 1 << 12

# A line break is CR LF, and a field is one line.
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
    """What came is no request of HTTP/1.1. `status` and `reason` are for its sender."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Wire:
    """The protocol's state of one connection."""

    def __init__(self) -> None:
        self._begin(b"", closed=False)

    def _begin(self, came: bytes, *, closed: bool) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._ahead = bytearray(came)  # what h11 does not have yet
        self._closed = closed  # the client sends no more than that
        self._told_closed = False
        self._raw = bytearray()  # what h11 has, and has not turned into an event
        self._lines = bytearray()  # of a head, or around the data of chunks
        self._overhead = 0
        self._untouched = True

    @property
    def pending(self) -> int:
        """How many bytes have come and are not read."""
        return len(self._ahead) + len(self._raw)

    @property
    def begun(self) -> bool:
        """Whether a part of a request's head has come."""
        return self.pending > 0 and self._h11.their_state is h11.IDLE

    @property
    def body_unread(self) -> bool:
        """Whether some of the request's body is still to be read."""
        return self._h11.their_state is h11.SEND_BODY

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return self._h11.they_are_waiting_for_100_continue

    @property
    def answered(self) -> bool:
        """Whether the answer has its end."""
        return self._h11.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    @property
    def reusable(self) -> bool:
        """Whether both sides are done with this exchange, and none wants the connection closed."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def feed(self, data: bytes) -> None:
        """Take what came; no bytes mean that the client sends no more."""
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
                raise BadRequest("its chunks are too small")
            self._lines.clear()
        elif isinstance(event, h11.EndOfMessage):
            self._check_lines()
        return event  # type: ignore[no-any-return]

    def next_of_body(self) -> tuple[bytes, bool] | None:
        """The next piece of the body, and whether it is the last; None when more has to come."""
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
        """Read over what has come of the request's body, if that is not much."""
        try:
            self.next_of_body()
        except BadRequest:
            pass  # the connection is closed behind the answer

    def send(self, event: h11.Event) -> bytes:
        """The bytes of a part of an answer. `h11.LocalProtocolError` when it does not fit."""
        return self._h11.send(event) or b""

    def next_request(self) -> None:
        """Go on to the next request, behind an exchange that left this `reusable`."""
        self._begin(bytes(self._raw + self._ahead), closed=self._closed)

    def _hand_on(self) -> bool:
        """Give h11 a little more; False when there is nothing."""
        if self._untouched and self._ahead:
            self._untouched = False
            if self._ahead.startswith(b"\r\n"):
                del self._ahead[:2]  # some send one too many behind a body
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
            raise BadRequest(f"its lines have more than {size(MAX_HEAD_BYTES)}", 431)
        if _SLOPPY_LINES.search(self._lines):
            raise BadRequest("a line ends without CR LF, or goes on in the next one")
        self._lines.clear()


def _check(request: h11.Request) -> None:
    names = [name for name, _ in request.headers]
    if request.http_version not in (b"1.0", b"1.1"):
        raise BadRequest("the version is not HTTP/1.1")
    if b"transfer-encoding" in names:
        # Whoever stands between could take another one of the two for true.
        if b"content-length" in names:
            raise BadRequest("Content-Length and Transfer-Encoding are in one request")
        if request.http_version == b"1.0":
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
    hosts = [value for name, value in request.headers if name == b"host"]
    if len(hosts) > 1 or any(_HOST.fullmatch(host) is None for host in hosts):
        raise BadRequest("Host is not the name of one host")
    target = request.target
    if request.method == b"CONNECT":
        raise BadRequest("this is no proxy", 501)
    if not target.startswith(b"/") and target != b"*":
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or _HOST.fullmatch(absolute[1]) is None:
            raise BadRequest("the target is neither a path nor an http address")


def scope_of(request: h11.Request, client: Any, server: Any) -> Scope:
    """The request as ASGI has it; `client` and `server` are its two addresses, None for none."""
    headers = list(request.headers)
    target = request.target
    if absolute := _ABSOLUTE.fullmatch(target):
        # Then Host is not what counts.
        headers = [(b"host", absolute[1]), *(pair for pair in headers if pair[0] != b"host")]
        target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        # With 2.3 an application listens for a client that goes away.
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
    """The head of an answer. With `close` it says that no other one comes."""
    named = [pair for pair in headers if pair[0].lower() != b"connection"]
    named.append((b"date", formatdate(usegmt=True).encode("ascii")))
    if close:
        named.append((b"connection", b"close"))
    return h11.Response(status_code=status, headers=named)
