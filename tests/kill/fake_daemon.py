"""The fake Incus behind a socket: it lives in the test's process, its clients in others.

A client says what it wants, and then `go`. One that dies before the `go` has killed itself with
its request on its way: an operation (create, publish, ...) is then carried out a while later, as
a real daemon may do, and nobody hears of it. An exec has begun, with an empty stdin. A client of
a process that was killed alone outlives it, without what was still to come on stdin; one of a
killed group dies too.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from orchestrator.errors import one_error
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Completed, Feed, Sink, Stdin

# Longer than a job of the tests takes: what comes late is not swept by the way.
LATE_SECS = 0.7
_OPERATIONS = ("create", "launch", "start", "stop", "delete", "publish")
_GO = b"\0"


class Asked(msgspec.Struct):
    """A client's request. `outlives`: the client goes on when our process dies.

    A `stdin` that is None comes later, as a message of its own.
    """

    argv: list[str]
    stdin: bytes | None
    outlives: bool


class Given(msgspec.Struct):
    """The stdin that comes later."""

    stdin: bytes


class Output(msgspec.Struct, tag=True):
    """A piece of stdout."""

    chunk: bytes


class Ended(msgspec.Struct, tag=True):
    """The command's end."""

    exit_code: int
    stderr: bytes


class Late:
    """What is still to be carried out for clients that are dead."""

    def __init__(self) -> None:
        self.pending = 0

    async def wait_done(self) -> None:
        """Return when all of it is."""
        while self.pending:
            await trio.sleep(LATE_SECS / 20)


@asynccontextmanager
async def serving(fake: FakeIncus, address: Path) -> AsyncIterator[Late]:
    """Answer clients on a socket while the block runs."""
    late = Late()
    bound = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await bound.bind(str(address))
    bound.listen(50)
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(bound)
        await nursery.start(trio.serve_listeners, partial(_serve, fake, late), [listener])
        yield late
        nursery.cancel_scope.cancel()


async def _serve(fake: FakeIncus, late: Late, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            asked = msgspec.msgpack.decode(await _receive(stream), type=Asked)
        except (ConnectionResetError, trio.BrokenResourceError):
            return  # it was killed before it had asked
        gone = not await stream.receive_some(1)
        operation = asked.argv[1] in _OPERATIONS
        if gone and not (operation or asked.outlives):
            if asked.argv[1] == "exec":
                # Incus begins it at once. What was to come on stdin has died with the client.
                await fake(asked.argv, env={}, stdin=b"", sink=_drop)
            return
        late.pending += gone
        if gone:
            await trio.sleep(LATE_SECS)

        async def sink(chunk: bytes) -> None:
            await _tell(stream, Output(chunk))

        given, data = trio.Event(), b""

        async def late_stdin() -> bytes:
            await given.wait()
            return data

        async def end_with_client() -> None:
            nonlocal data
            try:
                if asked.stdin is None:
                    data = msgspec.msgpack.decode(await _receive(stream), type=Given).stdin
                    given.set()
                await stream.receive_some(1)
            except (ConnectionResetError, trio.BrokenResourceError):
                given.set()
            if not (operation or asked.outlives):
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_with_client)
            stdin = late_stdin if asked.stdin is None else asked.stdin
            ended = await fake(asked.argv, env={}, stdin=stdin, sink=sink)
            await _tell(stream, Ended(ended.exit_code, ended.stderr))
            nursery.cancel_scope.cancel()
        late.pending -= gone


async def _drop(chunk: bytes) -> None:
    """Output that nobody reads."""


async def _tell(stream: trio.SocketStream, message: Output | Ended) -> None:
    try:
        await stream.send_all(_framed(message))
    except trio.BrokenResourceError:
        pass  # there is nobody to tell any more


class FakeClient:
    """What a process has in place of the incus command."""

    def __init__(self, address: Path, *, outlives: bool) -> None:
        self._address = address
        self._outlives = outlives

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str],
        stdin: bytes | Stdin,
        sink: Sink | None,
        asked: Callable[[], None],
        feed: Feed | None = None,
    ) -> Completed:
        collected = bytearray()
        # What reads its stdin until the end ends with its client.
        outlives = self._outlives and feed is None
        early = stdin if isinstance(stdin, bytes) else None
        async with await trio.open_unix_socket(self._address) as stream:
            await stream.send_all(_framed(Asked(list(argv), early, outlives)))
            asked()
            await stream.send_all(_GO)

            async def give(late: Stdin) -> None:
                await stream.send_all(_framed(Given(await late())))

            with one_error():
                async with trio.open_nursery() as nursery:
                    if not isinstance(stdin, bytes):
                        nursery.start_soon(give, stdin)
                    while True:
                        data = await _receive(stream)
                        match msgspec.msgpack.decode(data, type=Output | Ended):
                            case Output(chunk) if sink is not None:
                                await sink(chunk)
                            case Output(chunk):
                                collected += chunk
                            case Ended(exit_code, stderr):
                                nursery.cancel_scope.cancel()
                                break
        return Completed(tuple(argv), exit_code, bytes(collected), stderr)


def _framed(message: msgspec.Struct) -> bytes:
    data = msgspec.msgpack.encode(message)
    return struct.pack("!I", len(data)) + data


async def _receive(stream: trio.SocketStream) -> bytes:
    (size,) = struct.unpack("!I", await _exactly(stream, 4))
    return await _exactly(stream, size)


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        if not chunk:
            raise ConnectionResetError("the other side went away")
        data += chunk
    return bytes(data)
