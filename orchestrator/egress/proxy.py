"""The HTTP proxy of one job: CONNECT, and requests with an absolute URI, over any stream.

A connection to the outside serves one request: an answer never depends on an earlier one's.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import trio

from orchestrator.egress.dial import Dialer, Target
from orchestrator.egress.errors import NoConnection, NotARequest, Refused, TooLate
from orchestrator.egress.host_proxy import HostProxy
from orchestrator.egress.ledger import Entry, Ledger
from orchestrator.egress.link import GuestStream
from orchestrator.errors import leaves, one_error
from states.egress import authority, plain_host, split_port

HEAD_SECS = 60.0  # for a request's head; also between requests
ANSWER_SECS = 600.0  # between two parts of an answer, or in a tunnel whose other half has ended
MAX_HEAD_BYTES = 1 << 15
MAX_LINE_BYTES = 1 << 13  # of a request's first line
CHUNK = 1 << 16

_ABSOLUTE = re.compile(r"http://([^/?#]*)([/?][^#]*)?(?:#.*)?", re.IGNORECASE)
_FIRST_LINE = re.compile(rb"[A-Za-z-]{1,32} \S+ HTTP/1\.[01]\r?\n")
_FIRST_BYTES = re.compile(rb"[A-Za-z-]{1,32}(?: [!-~]*)?")
# RFC 9110, 7.6.1: these are between two neighbours only.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" upgrade".split()
)

# Of either side; h11's are those of what cannot be said in HTTP.
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError, OSError)

Headers = list[tuple[bytes, bytes]]


class Proxy:
    """Serves the connections of one job."""

    def __init__(self, dialer: Dialer, ledger: Ledger) -> None:
        self._dialer = dialer
        self._ledger = ledger

    async def serve(self, stream: GuestStream) -> None:
        """Serve one client until it or the proxy closes the connection."""
        client = _Client(stream)
        while True:
            with self._ledger.entry() as entry:
                another = False
                try:
                    another = await self._serve_one(client, entry)
                except* _BROKEN as group:
                    entry.reason = f"the connection broke: {_plain(str(next(leaves(group))))}"
                    # The client sees an error too, and does not take what came for all there is.
                    await client.refuse(NoConnection(entry.reason))
                finally:
                    entry.reason = stream.dropped or entry.reason
            if not another:
                return
            client.start_next()

    async def _serve_one(self, client: _Client, entry: Entry) -> bool:
        """Serve a request; returns whether another may follow."""
        try:
            request = await client.request()
            if request is None:
                return False
            target, path = _target(request)
            entry.host, entry.port = target.host, target.port
            proxy = self._dialer.check(target)
            if target.tunnel:
                await self._tunnel(client, target, proxy, entry)
                return False
            return await self._forward(client, request, target, path, proxy, entry)
        except NoConnection as error:
            entry.reason, entry.address = error.reason, error.address
            entry.refused = isinstance(error, Refused | NotARequest)
            await client.refuse(error)
        return False

    async def _reach(
        self, target: Target, proxy: HostProxy | None, entry: Entry
    ) -> trio.SocketStream:
        if proxy is not None:
            entry.proxy = str(proxy)
            return await self._dialer.connect_to_proxy(proxy)
        stream = await self._dialer.connect(target)
        entry.address = stream.socket.getpeername()[0]
        return stream

    async def _tunnel(
        self, client: _Client, target: Target, proxy: HostProxy | None, entry: Entry
    ) -> None:
        server = await self._reach(target, proxy, entry)
        async with server:
            early = b"" if proxy is None else await _ask_for_tunnel(server, target, proxy)
            await client.accept_tunnel()
            stream, scope = client.stream, trio.CancelScope()
            half = False

            async def copy(
                source: Callable[[int], Awaitable[bytes | bytearray]],
                sink: trio.abc.HalfCloseableStream,
                count: Callable[[int], None],
                first: bytes,
            ) -> None:
                nonlocal half
                data: bytes | bytearray = first or await source(stream.chunk)
                while data:
                    await sink.send_all(data)
                    count(len(data))
                    if half:
                        scope.deadline = trio.current_time() + ANSWER_SECS
                    data = await source(stream.chunk)
                half = True
                scope.deadline = trio.current_time() + ANSWER_SECS
                await sink.send_eof()

            def sent(size: int) -> None:
                entry.sent_bytes += size

            def received(size: int) -> None:
                entry.received_bytes += size

            with one_error(), scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(copy, stream.receive_some, server, sent, client.unread())
                    nursery.start_soon(copy, server.receive_some, stream, received, early)
            if scope.cancelled_caught:
                entry.reason = f"nothing came for {ANSWER_SECS:g} s after one side had ended"
                await stream.abort()
            else:
                await stream.aclose()

    async def _forward(
        self,
        client: _Client,
        request: h11.Request,
        target: Target,
        path: bytes,
        proxy: HostProxy | None,
        entry: Entry,
    ) -> bool:
        server = await self._reach(target, proxy, entry)
        async with server:
            headers = _end_to_end(request.headers)
            replaced = [b"host", b"expect"]
            if any(name == b"transfer-encoding" for name, _ in headers):
                # RFC 9112, 6.3: with both, a server that believes the length sees another request.
                replaced.append(b"content-length")
            headers = [pair for pair in headers if pair[0] not in replaced]
            host = str(target) if target.port != 80 else str(target).rpartition(":")[0]
            headers[:0] = [(b"host", host.encode())]
            headers.append((b"connection", b"close"))
            if proxy is not None:
                path = b"http://" + host.encode() + path
                if proxy.authorization:
                    headers.append((b"proxy-authorization", proxy.authorization.encode()))
            wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

            async def send(event: Any) -> None:
                data = wire.send(event) or b""
                entry.sent_bytes += len(data)
                try:
                    await server.send_all(data)
                except trio.BrokenResourceError:
                    pass  # it may have answered already, and said why

            async def send_body() -> None:
                async for part in client.body():
                    await send(part)

            await send(h11.Request(method=request.method, target=path, headers=headers))
            with one_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_body)
                    await self._answer(client, wire, server, entry)
                    nursery.cancel_scope.cancel()
        if not client.may_continue:
            await client.stream.aclose()
        return client.may_continue

    async def _answer(
        self, client: _Client, wire: h11.Connection, server: trio.SocketStream, entry: Entry
    ) -> None:
        while True:
            event = wire.next_event()
            match event:
                case h11.NEED_DATA:
                    data = b""
                    with trio.move_on_after(ANSWER_SECS) as scope:
                        data = bytes(await server.receive_some(client.stream.chunk))
                    if scope.cancelled_caught:
                        raise trio.BrokenResourceError(f"no answer for {ANSWER_SECS:g} s")
                    entry.received_bytes += len(data)
                    wire.receive_data(data)
                case h11.Response():
                    await client.send(
                        h11.Response(
                            status_code=event.status_code,
                            reason=event.reason,
                            headers=_end_to_end(event.headers),
                        )
                    )
                case h11.Data():
                    await client.send(h11.Data(data=event.data))
                case h11.EndOfMessage():
                    await client.send(h11.EndOfMessage())
                    return
                case h11.ConnectionClosed() | h11.PAUSED:
                    raise trio.BrokenResourceError("the server closed it without an answer")


class _Client:
    """The client's side of HTTP, on a stream of the guest."""

    def __init__(self, stream: GuestStream) -> None:
        self.stream = stream
        self._is_head = False  # then an answer has no body
        self._wire = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    @property
    def may_continue(self) -> bool:
        """Whether another request may come."""
        return self._wire.our_state is h11.DONE and self._wire.their_state is h11.DONE

    def start_next(self) -> None:
        self._wire.start_next_cycle()

    async def request(self) -> h11.Request | None:
        """The next request; None when the client sends no more. Raises `NoConnection`."""
        event: Any = None
        with trio.move_on_after(HEAD_SECS):
            await self._read_first_line()
            event = await self._next_event()
        if event is None:
            if self._wire.trailing_data[0]:
                raise TooLate(f"no complete request arrived within {HEAD_SECS:g} s")
            await self.stream.aclose()
            return None
        if isinstance(event, h11.Request):
            self._is_head = event.method == b"HEAD"
            return event
        await self.stream.aclose()
        return None

    async def _read_first_line(self) -> None:
        """Refuse at once what is no HTTP: its client may wait for an answer as we wait for it."""
        while b"\n" not in (came := self._wire.trailing_data[0]) and len(came) < MAX_LINE_BYTES:
            if came and not _FIRST_BYTES.match(came):
                break
            data = await self.stream.receive_some()
            self._wire.receive_data(data)
            if not data:
                return
        if not _FIRST_LINE.match(came):
            raise NotARequest("this is an HTTP proxy, and that was not an HTTP/1.1 request")

    async def _next_event(self) -> Any:
        try:
            while (event := self._wire.next_event()) is h11.NEED_DATA:
                if self._wire.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                self._wire.receive_data(await self.stream.receive_some())
        except h11.RemoteProtocolError as error:
            raise NotARequest(f"this is an HTTP proxy: {_plain(str(error))}") from None
        return event

    async def body(self) -> Any:
        """The parts of the request's body, and its end."""
        while True:
            event = await self._next_event()
            if not isinstance(event, h11.Data | h11.EndOfMessage):
                raise trio.BrokenResourceError("the client sent no complete request")
            yield event
            if isinstance(event, h11.EndOfMessage):
                return

    async def send(self, event: Any) -> None:
        """Send a part of an answer."""
        data = self._wire.send(event)
        if data:
            await self.stream.send_all(data)

    async def accept_tunnel(self) -> None:
        reason = b"Connection established"
        await self.send(h11.Response(status_code=200, headers=[], reason=reason))

    def unread(self) -> bytes:
        """What the client sent beyond its request for a tunnel."""
        return bytes(self._wire.trailing_data[0])

    async def refuse(self, error: NoConnection) -> None:
        """Answer with the reason in the first line, as clients show nothing else; then close.

        If an answer has begun, the client sees that it broke off.
        """
        if self._wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = f"{error.reason}\n".encode()
            headers = [
                ("content-type", "text/plain"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            reason = error.reason.encode()
            await self.send(h11.Response(status_code=error.status, headers=headers, reason=reason))
            if not self._is_head:
                await self.send(h11.Data(data=body))
            await self.stream.aclose()
        else:
            await self.stream.abort()


def _target(request: h11.Request) -> tuple[Target, bytes]:
    """What a request asks for, and its path there. Raises `NotARequest`."""
    text = request.target.decode("ascii", "replace")
    tunnel = request.method == b"CONNECT"
    path = "/"
    if tunnel:
        place = text
    elif found := _ABSOLUTE.fullmatch(text):
        place, path = found[1], found[2] or "/"
        path = path if path.startswith("/") else f"/{path}"
    else:
        raise NotARequest("this is an HTTP proxy: it takes CONNECT HOST:PORT and GET http://HOST/")
    host, port = split_port(place)
    plain = plain_host(host)
    if port is None or not plain or (tunnel and not port):
        raise NotARequest(f"{_plain(place)} is not a host with a port")
    return Target(plain, port or 80, tunnel), path.encode()


def _plain(text: str) -> str:
    """The text, made safe for the first line of an answer."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:200])


def _end_to_end(headers: Any) -> Headers:
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    return [
        (name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in named
    ]


async def _ask_for_tunnel(server: trio.SocketStream, target: Target, proxy: HostProxy) -> bytes:
    """Have the host's proxy open a tunnel; returns what came beyond its answer."""
    place = authority(target.host, target.port).encode()
    headers = [(b"host", place)]
    if proxy.authorization:
        headers.append((b"proxy-authorization", proxy.authorization.encode()))
    wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        with trio.fail_after(HEAD_SECS):
            await server.send_all(
                wire.send(h11.Request(method="CONNECT", target=place, headers=headers)) or b""
            )
            while (event := wire.next_event()) is h11.NEED_DATA or isinstance(
                event, h11.InformationalResponse
            ):
                if event is h11.NEED_DATA:
                    wire.receive_data(bytes(await server.receive_some(CHUNK)))
    except trio.TooSlowError:
        raise TooLate(f"the host's proxy {proxy} does not answer") from None
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        raise NoConnection(f"the host's proxy {proxy} does not answer as a proxy") from None
    if not isinstance(event, h11.Response) or not 200 <= event.status_code < 300:
        said = ""
        if isinstance(event, h11.Response):
            said = f": {event.status_code} {_plain(event.reason.decode('latin-1'))}"
        raise NoConnection(f"the host's proxy {proxy} does not connect to {target}{said}")
    return bytes(wire.trailing_data[0])
