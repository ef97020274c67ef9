"""The control socket: other processes ask the owner of a session to cancel its jobs."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import trio

from orchestrator.job.task import JobTask
from orchestrator.session.locks import holder_pid, session_of
from orchestrator.slow_files import in_thread
from states.errors import PikaciError

REASON = "asked for with `pikaci cancel`"
MAX_REQUEST_BYTES = 1 << 20
REQUEST_SECS = 10.0
# A live process confirms at once that it has read a request.
HEARD_SECS = 5.0
HEARD, ENDED = b"heard\n", b"ended\n"


class HolderSilent(PikaciError):
    """The process that owns a run is alive but does not answer."""


class CancelRequest(msgspec.Struct, frozen=True):
    """One line of JSON. `now`: without a grace period.

    The answer is one line when the request was read, and another when the jobs are dead.
    """

    jobs: tuple[str, ...]
    now: bool = False


_DECODER = msgspec.json.Decoder(CancelRequest)


@asynccontextmanager
async def listening(locks: Path, run: str, tasks: Mapping[str, JobTask]) -> AsyncIterator[None]:
    """Accept requests to cancel jobs of the run's session, by id, while the block runs.

    `tasks` may change meanwhile. A job that is not in it has ended, or is about to begin.
    """

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                with trio.fail_after(REQUEST_SECS):
                    request = await _read_request(stream)
                await stream.send_all(HEARD)
                asked = [tasks[job] for job in request.jobs if job in tasks]
                for task in asked:
                    task.cancel(REASON, now=request.now)
                for task in asked:
                    await task.settled.wait()
                await stream.send_all(ENDED)
            except (msgspec.MsgspecError, trio.BrokenResourceError, trio.TooSlowError):
                pass  # a client that disconnected, or that is not ours

    async with in_thread(_bound(locks, run)) as bound:
        door = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, [door])
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


async def ask_to_cancel(locks: Path, run: str, jobs: Sequence[str], *, now: bool) -> bool:
    """Ask the process that owns the run to cancel the jobs; True if it confirms that they ended.

    False if no process listens, or it disconnects before it answers. Raises `HolderSilent` if one
    listens but does not confirm that it has read the request.
    """
    heard = False
    async with in_thread(_socket_address(locks, run)) as address:
        try:
            async with await trio.open_unix_socket(address) as stream:
                request = CancelRequest(tuple(jobs), now)
                await stream.send_all(msgspec.json.encode(request) + b"\n")
                answer = b""
                with trio.move_on_after(HEARD_SECS):
                    answer = bytes(await stream.receive_some())
                    heard = True
                while answer and ENDED not in answer:
                    more = bytes(await stream.receive_some())
                    answer = more and answer + more
        except (OSError, trio.BrokenResourceError):
            return False
    if not heard:
        raise await trio.to_thread.run_sync(_silent, locks, run)
    return bool(answer)


def _silent(locks: Path, run: str) -> HolderSilent:
    pid = holder_pid(locks, run)
    if pid is None:
        return HolderSilent(f"the process of the run {run} does not answer")
    stopped = _process_state(pid) in ("T", "t")
    return HolderSilent(
        f"process {pid}, which has the run {run}, does not answer"
        + (": it is stopped" if stopped else ""),
        resolution=(f"`kill -CONT {pid}` resumes it; " if stopped else "")
        + f"`kill -9 {pid}` kills it, and then `pikaci cancel` works",
    )


def _process_state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


async def _read_request(stream: trio.SocketStream) -> CancelRequest:
    data = bytearray()
    while not data.endswith(b"\n") and len(data) < MAX_REQUEST_BYTES:
        chunk = await stream.receive_some()
        if not chunk:
            break
        data += chunk
    return _DECODER.decode(data)


@contextmanager
def _bound(locks: Path, run: str) -> Iterator[socket.socket]:
    """The session's socket, removed when the block ends."""
    with (
        _socket_address(locks, run) as address,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound,
    ):
        Path(address).unlink(missing_ok=True)
        bound.bind(address)
        try:
            bound.listen()
            yield bound
        finally:
            Path(address).unlink(missing_ok=True)


@contextmanager
def _socket_address(locks: Path, run: str) -> Iterator[str]:
    # A socket's path may have 107 bytes at most; that of a state root may be longer.
    directory = os.open(locks, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{session_of(run)}.sock"
    finally:
        os.close(directory)
