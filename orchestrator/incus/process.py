"""Runs a process: bytes in, bytes out, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from orchestrator.errors import one_error
from orchestrator.incus.effect import Stdin

Sink = Callable[[bytes], Awaitable[None]]
# Writes a process's stdin while it runs, and is cancelled when it ends.
Feed = Callable[[trio.abc.SendStream], Awaitable[None]]

MAX_STDERR_BYTES = 64 * 1024
_CHUNK = 64 * 1024
_WIDE_BYTES = 1 << 20  # as much as the kernel allows by default


@dataclass(frozen=True)
class Completed:
    """A command that ended. `stdout` is empty when a sink took it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes


class Spawn(Protocol):
    """Starts `argv`, feeds `stdin`, passes stdout to `sink`, and waits for the end.

    A `stdin` that is a function is awaited while the process runs. After it, a `feed` may write
    more. Both are cancelled when the process ends. When cancelled, or when one of the functions
    raises, the process group is killed and the process reaped before this returns.
    """

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str],
        stdin: bytes | Stdin,
        sink: Sink,
        feed: Feed | None = None,
    ) -> Completed: ...


async def spawn_process(
    argv: Sequence[str],
    *,
    env: dict[str, str],
    stdin: bytes | Stdin,
    sink: Sink,
    feed: Feed | None = None,
) -> Completed:
    """Run a real process in its own session, so that only pikaci receives a Ctrl-C."""
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.PIPE if stdin or feed else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=env,
    )
    stderr = bytearray()
    if feed is not None:
        _widen(process)
    try:
        with one_error():
            async with trio.open_nursery() as nursery:
                feeding = trio.CancelScope()
                if stdin or feed:
                    nursery.start_soon(_feed, process, stdin, feed, feeding)
                nursery.start_soon(_read_stderr, process, stderr)
                await _read_stdout(process, sink, _CHUNK if feed is None else 4 * _CHUNK)
                exit_code = await process.wait()
                feeding.cancel()
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
            with trio.CancelScope(shield=True):
                await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            _close(stream)
    return Completed(tuple(argv), exit_code, b"", bytes(stderr))


def _close(stream: object) -> None:
    """Without a checkpoint each, of which a job would have dozens."""
    if isinstance(stream, trio.lowlevel.FdStream):
        stream.close()


def _widen(process: trio.Process) -> None:
    """Let more wait in the pipes: each full one costs two switches between processes."""
    for stream in (process.stdin, process.stdout):
        assert isinstance(stream, trio.lowlevel.FdStream)
        try:
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _WIDE_BYTES)
        except OSError:
            pass  # the user has used up the kernel's memory for pipes: it works without


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def _feed(
    process: trio.Process, stdin: bytes | Stdin, feed: Feed | None, scope: trio.CancelScope
) -> None:
    assert process.stdin is not None
    try:
        with scope:
            await process.stdin.send_all(stdin if isinstance(stdin, bytes) else await stdin())
            if feed is not None:
                await feed(process.stdin)
    except trio.BrokenResourceError:
        pass  # it exited without reading everything: its exit code tells why
    finally:
        _close(process.stdin)


async def _read_stdout(process: trio.Process, sink: Sink, at_once: int) -> None:
    assert process.stdout is not None
    while chunk := await process.stdout.receive_some(at_once):
        await sink(bytes(chunk))


async def _read_stderr(process: trio.Process, into: bytearray) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.receive_some(_CHUNK):
        into += chunk[: MAX_STDERR_BYTES - len(into)]
