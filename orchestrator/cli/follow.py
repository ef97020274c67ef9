"""Brings what happens to a run's jobs, and their logs, to whoever shows the run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing

import trio

from orchestrator.cli.last_lines import RUNNERS_LINE
from orchestrator.cli.watch import Watch
from orchestrator.errors import one_error
from orchestrator.job.handle import LogPiece

_HEAD = RUNNERS_LINE.encode()
MAX_RUNNERS_LINE = 200


class CommandOutput:
    """Takes a log in pieces, and leaves the runner's first line of each attempt out."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # what may be the runner's line
        self._attempt = 0
        self._in_line = False

    def feed(self, piece: LogPiece) -> bytes:
        """What the command printed of this piece. Another attempt's output begins a new line."""
        start = b""
        if piece.attempt != self._attempt:
            # What is left of the runner's line of an attempt that ended within it is dropped.
            self._attempt, self._head = piece.attempt, b""
            start = b"\n" if self._in_line else b""
        printed = start + self._without_head(piece.data)
        if printed:
            self._in_line = not printed.endswith(b"\n")
        return printed

    def _without_head(self, data: bytes) -> bytes:
        if self._head is None:
            return data
        head = self._head + data
        first, end, rest = head.partition(b"\n")
        known = min(len(first), len(_HEAD))
        if first[:known] != _HEAD[:known] or len(first) > MAX_RUNNERS_LINE:
            self._head = None
            return head
        self._head = None if end else head
        return rest

    def end(self) -> bytes:
        """What is left when the log ends."""
        return self._head or b""


async def follow(
    jobs: Iterable[str],
    watch: Watch,
    *,
    log: Callable[[str], AsyncGenerator[LogPiece, None]],
    until_ended: Callable[[str, trio.Event], Awaitable[bool]],
) -> None:
    """Give `watch` each job's output; when `until_ended` has returned, tell it of the job's end.

    `until_ended` sets the event when `watch` knows the job, which has no output before, and returns
    whether the job is flaky.
    """

    async def copy_log(job: str, known: trio.Event) -> None:
        if watch.wants_log:
            await known.wait()
            output = CommandOutput()
            async with aclosing(log(job)) as pieces:
                async for piece in pieces:
                    if printed := output.feed(piece):
                        await watch.log(job, printed)
            if printed := output.end():
                await watch.log(job, printed)

    async def show(job: str) -> None:
        known = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy_log, job, known)
            flaky = await until_ended(job, known)
            known.set()
        await watch.ended(job, flaky=flaky)

    with one_error():
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(show, job)
