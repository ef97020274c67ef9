"""A socket on which others ask the process that has a session to cancel jobs of it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import trio

from orchestrator.job_task import JobTask
from orchestrator.locks import session_of

REASON = "asked for with `pikaci cancel`"
MAX_REQUEST_BYTES = 1 << 20
REQUEST_SECS = 10.0


class CancelRequest(msgspec.Struct, frozen=True):
    """One line of JSON. `now`: without a grace period. The answer is a line when they are dead."""

    jobs: tuple[str, ...]
    now: bool = False


@asynccontextmanager
async def listening(locks: Path, run: str, tasks: Mapping[str, JobTask]) -> AsyncIterator[None]:
    """Take cancel requests for the jobs of the run's session, by id, while the block runs.

    `tasks` may grow and shrink meanwhile. A job that is not in it has ended, or just begins.
    """

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                with trio.fail_after(REQUEST_SECS):
                    request = await _read_request(stream)
                asked = [tasks[job] for job in request.jobs if job in tasks]
                for task in asked:
                    task.cancel(REASON, now=request.now)
                for task in asked:
                    await task.settled.wait()
                await stream.send_all(b"ended\n")
            except (msgspec.MsgspecError, trio.BrokenResourceError, trio.TooSlowError):
                pass  # a client that went away, or none of ours

    with _socket_address(locks, run) as address:
        bound = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(address).unlink(missing_ok=True)
        await bound.bind(address)
        bound.listen()
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, [trio.SocketListener(bound)])
            try:
                yield
            finally:
                Path(address).unlink(missing_ok=True)
                nursery.cancel_scope.cancel()


async def ask_to_cancel(locks: Path, run: str, jobs: Sequence[str], *, now: bool) -> bool:
    """Have the process that holds the run cancel the jobs; True when it has said that they ended.

    False when no process listens, or it went away before its answer.
    """
    with _socket_address(locks, run) as address:
        try:
            async with await trio.open_unix_socket(address) as stream:
                request = CancelRequest(tuple(jobs), now)
                await stream.send_all(msgspec.json.encode(request) + b"\n")
                return bool(await stream.receive_some())
        except (OSError, trio.BrokenResourceError):
            return False


async def _read_request(stream: trio.SocketStream) -> CancelRequest:
    data = bytearray()
    while not data.endswith(b"\n") and len(data) < MAX_REQUEST_BYTES:
        chunk = await stream.receive_some()
        if not chunk:
            break
        data += chunk
    return msgspec.json.decode(data, type=CancelRequest)


@contextmanager
def _socket_address(locks: Path, run: str) -> Iterator[str]:
    # A socket's path has at most 107 bytes, a state root's any number.
    directory = os.open(locks, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{session_of(run)}.sock"
    finally:
        os.close(directory)
