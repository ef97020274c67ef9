"""The host's end of a guest's connections: many streams over one exec's stdin and stdout.

A stalled stream delays no other, and none takes more memory than its window: the sender of a
direction waits when the receiver has a whole window that it has not passed on yet. All of them
together take `HELD_BYTES`, and `SPREAD_BYTES` in each direction for what is being passed on. Where
that is used up the guest waits, and what takes nothing meanwhile is dropped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio

from orchestrator.egress.frames import (
    TO_GUEST_BYTES,
    TO_HOST_BYTES,
    BadFrame,
    Frames,
    Hello,
    Kind,
    frame,
)

# The guest's end allows 256; some of ours may still be ending.
MAX_STREAMS = 512
SEND_BYTES = 1 << 16
# Of all streams together. What a guest may send by its windows alone would be 128 MiB.
HELD_BYTES = 8 << 20  # received from the guest, and not passed on
SPREAD_BYTES = 4 << 20  # being passed on, in each direction
LEAST_BYTES = 1 << 12
STALLED_SECS = 10.0

_hello = msgspec.json.Decoder(Hello)


class GuestStream(trio.abc.HalfCloseableStream):
    """One connection of a client in the guest."""

    def __init__(self, link: Link, number: int) -> None:
        self.scope = trio.CancelScope()
        self.dropped = ""  # why this side ended it, whatever its task was doing
        self._link = link
        self._number = number
        self._buffer = bytearray()
        self._unsaid = 0  # bytes that were taken, and the guest does not know of
        self._credit = TO_GUEST_BYTES
        self._at_end = False
        self._closed = False
        self._changed = trio.Event()

    @property
    def chunk(self) -> int:
        """How many bytes to pass on at a time, in bytes: fewer when there are many streams."""
        return self._link.chunk

    @property
    def held(self) -> int:
        """The bytes that came from the client and were not received, in bytes."""
        return len(self._buffer)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes of the client, at most `chunk`; b"" when it sends no more."""
        while not self._buffer and not self._at_end:
            await self._changed.wait()
        data = bytes(self._buffer[: min(max_bytes or SEND_BYTES, self.chunk)])
        del self._buffer[: len(data)]
        self._link.passed_on(len(data))
        self._unsaid += len(data)
        if self._unsaid >= TO_HOST_BYTES // 4 and not self._at_end:
            said, self._unsaid = self._unsaid, 0
            await self._link.send(Kind.CREDIT, self._number, said.to_bytes(4, "big"))
        else:
            await trio.lowlevel.checkpoint()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send these bytes to the client, as fast as it takes them."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                while self._credit <= 0:
                    await self._changed.wait()
                part = view[at : at + min(SEND_BYTES, self._credit)]
                self._credit -= len(part)
                at += len(part)
                await self._link.send(Kind.DATA, self._number, part)

    async def wait_send_all_might_not_block(self) -> None:
        """Return when the client could take something."""
        while self._credit <= 0:
            await self._changed.wait()

    async def send_eof(self) -> None:
        """Send no more."""
        await self._link.send(Kind.EOF, self._number)

    async def aclose(self) -> None:
        """End it in good order: the client gets all that was sent."""
        await self._end(Kind.CLOSE)

    async def abort(self) -> None:
        """End it with an error for the client."""
        await self._end(Kind.RESET)

    def drop(self, reason: str) -> None:
        """Give up, at once: its task is cancelled, and ends it with an error for the client."""
        self.dropped = reason
        self._forget_buffer()
        self.scope.cancel()

    async def _end(self, kind: Kind) -> None:
        if not self._closed:
            self._closed = True
            self._forget()
            await self._link.send(kind, self._number)

    def _forget(self) -> None:
        self._link.forget(self._number)
        self._forget_buffer()

    def _forget_buffer(self) -> None:
        self._link.passed_on(len(self._buffer))
        self._buffer.clear()

    # What the link says of the stream.

    def take(self, kind: Kind, data: bytes) -> None:
        """Take a frame of the guest. Raises `BadFrame`."""
        match kind:
            case Kind.DATA:
                if self.dropped:
                    return
                self._buffer += data
                self._link.hold(len(data))
                if len(self._buffer) + self._unsaid > TO_HOST_BYTES or self._at_end:
                    raise BadFrame("the guest sent more data of a connection than allowed")
            case Kind.EOF:
                self._at_end = True
            case Kind.CREDIT:
                self._credit += int.from_bytes(data, "big")
                if self._credit > TO_GUEST_BYTES:
                    raise BadFrame("the guest gave more credit than allowed")
            case Kind.RESET:
                self._closed = True
                self._forget()
                self.scope.cancel()
        self._changed.set()
        self._changed = trio.Event()


Serve = Callable[[GuestStream], Awaitable[None]]


class Link:
    """One exec's streams. `serve` is called for each, in a task of its own.

    `feed` takes what the exec prints, `send_to` writes its stdin until cancelled. `hello` is what
    the guest said first, None before it did.
    """

    def __init__(self, nursery: trio.Nursery, serve: Serve) -> None:
        self.hello: Hello | None = None
        self.greeted = trio.Event()
        self._nursery = nursery
        self._serve = serve
        self._frames = Frames()
        self._streams: dict[int, GuestStream] = {}
        self._last = 0
        self._lock = trio.Lock()  # fair: each stream has its turn
        self._out: trio.abc.SendStream | None = None
        self._held = 0
        self._passed_on = trio.Event()

    @property
    def held(self) -> int:
        """What came from the guest and no stream's task received, in bytes."""
        return self._held

    @property
    def chunk(self) -> int:
        """How many bytes a stream passes on at a time, in bytes."""
        return max(LEAST_BYTES, min(SEND_BYTES, SPREAD_BYTES // max(1, len(self._streams))))

    def hold(self, size: int) -> None:
        """Bytes of a stream came."""
        self._held += size

    def passed_on(self, size: int) -> None:
        """Bytes of a stream are no longer held."""
        self._held -= size
        self._passed_on.set()

    async def send_to(self, out: trio.abc.SendStream) -> None:
        """Write to this stream from now on; does not return."""
        self._out = out
        await trio.sleep_forever()

    async def send(self, kind: Kind, number: int, data: bytes | memoryview = b"") -> None:
        """Send a frame to the guest."""
        async with self._lock:
            if self._out is None:
                return
            # A part of a frame would break all that follow it.
            with trio.CancelScope(shield=True):
                await self._send(frame(kind, number, data))

    async def _send(self, data: bytes) -> None:
        assert self._out is not None
        try:
            await self._out.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._out = None  # the exec ended, which its own task reports

    async def feed(self, chunk: bytes) -> None:
        """Take what the exec printed; waits while too much of it is held. Raises `BadFrame`."""
        for kind, number, data in self._frames.feed(chunk):
            self._take(kind, number, data)
        await trio.lowlevel.checkpoint()
        while self._held > HELD_BYTES:
            self._passed_on = trio.Event()
            with trio.move_on_after(STALLED_SECS) as scope:
                await self._passed_on.wait()
            if scope.cancelled_caught:
                self._drop_stalled()

    def _drop_stalled(self) -> None:
        """Drop streams, those that hold most, until half is free: all have stalled."""
        for stream in sorted(self._streams.values(), key=lambda one: one.held, reverse=True):
            if self._held <= HELD_BYTES // 2:
                return
            stream.drop(
                f"its server read nothing for {STALLED_SECS:g} s, while the job's connections had"
                f" {HELD_BYTES >> 20} MiB buffered for their servers"
            )

    def forget(self, number: int) -> None:
        """The stream has ended on this side."""
        self._streams.pop(number, None)

    def _take(self, kind: Kind, number: int, data: bytes) -> None:
        if kind is Kind.HELLO:
            if self.hello is not None:
                raise BadFrame("the guest said hello twice")
            try:
                self.hello = _hello.decode(data)
            except msgspec.DecodeError as error:
                raise BadFrame(f"the guest's hello cannot be read: {error}") from None
            self.greeted.set()
        elif kind is Kind.OPEN:
            if number <= self._last or len(self._streams) >= MAX_STREAMS or self.hello is None:
                raise BadFrame("the guest opened a connection that is not allowed")
            self._last = number
            stream = self._streams[number] = GuestStream(self, number)
            self._nursery.start_soon(self._run, stream)
        elif (there := self._streams.get(number)) is not None:
            there.take(kind, data)
        elif number > self._last or kind is Kind.CLOSE:
            raise BadFrame("the guest sent a frame of a connection that it did not open")

    async def _run(self, stream: GuestStream) -> None:
        try:
            with stream.scope:
                await self._serve(stream)
        finally:
            # The way that was not taken: `serve` closes what ended well.
            with trio.CancelScope(shield=True):
                await stream.abort()
