"""Handles on submitted jobs and runs, to watch and cancel them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from orchestrator.attempt.archive import Manifest, read_artifacts
from orchestrator.units import counted
from states import events as ev
from states.events import OutputRef
from states.job import Job
from states.testcases import Case, CaseOutcome
from states.usage import Usage

if TYPE_CHECKING:
    from orchestrator.job.jobs import Jobs

BATCH = 500
# The largest piece that a follower of a log gets, and the largest read.
LOG_BYTES = 1 << 16
READ_BYTES = 4 * LOG_BYTES
# A follower that is up to date waits at least this long before it reads again.
GATHER_SECS = 0.02
# Poll interval for another process's jobs: nothing wakes this process when they change.
FOREIGN_SECS = 0.5


@dataclass(frozen=True)
class LogPiece:
    """Bytes of an attempt's log; `end` is the offset after them."""

    attempt: int
    end: int
    data: bytes


class JobHandle:
    """A job in an orchestrator's state root, read from the journal.

    A reader holds only its position: however slow it is, it loses nothing, and nobody waits for it.
    Async methods read in a worker thread, or know the job without reading. Properties read at once,
    and block the loop for as long as the disk takes.
    """

    def __init__(self, jobs: Jobs, id: str) -> None:
        self.id = id
        self._jobs = jobs

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    @property
    def job(self) -> Job:
        """The current job. `NotFound` if `pikaci gc` has deleted it."""
        return self._jobs.journal.job(self._jobs.row(self.id).id)

    @property
    def ended(self) -> bool:
        """Whether the job has its verdict."""
        row = self._jobs.journal.find(self.id)
        return row is None or row.ended

    @property
    def directory(self) -> Path:
        """Where the log, the result and the artifacts of its current attempt are, or will be.

        Also known if the job's events cannot be read. `NotFound` like `job`.
        """
        return self._directory(self._jobs.row(self.id).attempt)

    async def fetch(self) -> Job:
        """`job`, without blocking the loop."""
        known = self._jobs.driver.going(self.id)
        if known is not None:
            return known
        return await self._jobs.reading.journal(lambda: self.job)

    async def look(self) -> Job:
        """Like `fetch`; if the job cannot be read, what is known of it, and its `damage`."""
        known = self._jobs.driver.going(self.id)
        if known is not None:
            return known
        journal = self._jobs.journal
        return await self._jobs.reading.journal(lambda: journal.look(self._jobs.row(self.id)))

    async def fetch_directory(self) -> Path:
        """`directory`, without blocking the loop."""
        known = self._jobs.driver.known(self.id)
        if known is not None:
            return self._directory(known.attempt)
        return await self._jobs.reading.journal(lambda: self.directory)

    async def wait(self) -> Job:
        """Return the job when it has ended, whatever its verdict: as `fetch` does then.

        Raises the error that keeps this process from driving the job (`JournalError`, for example);
        the next start resumes it.
        """
        await trio.lowlevel.checkpoint()
        while True:
            arrival = self._jobs.arrivals.entry(self.id)
            known = self._jobs.driver.known(self.id)
            if known is not None and known.ended:
                return await self.fetch()
            if known is None:
                job = await self._jobs.reading.journal(self._if_ended)
                if job is not None:
                    return job
            await self._next(arrival)

    async def events(self) -> AsyncIterator[ev.AnyEvent]:
        """The job's events as they happen, from first to last. Raises what `wait` raises."""
        async for _, entry in self.entries():
            if isinstance(entry, ev.Event):
                yield entry

    async def entries(self, *, after: int = 0) -> AsyncIterator[tuple[int, ev.Entry]]:
        """Events and notes after number `after`, each with its number in the journal.

        Ends when the job has ended and everything written by then was yielded.
        """
        while batch := await self.more(after):
            for number, entry in batch:
                yield number, entry
                after = number

    async def more(self, after: int) -> list[tuple[int, ev.Entry]]:
        """The next entries after the number, some hundreds at most; empty if the job has no more.

        While the job has not ended, waits for its next entry.
        """
        while True:
            arrival = self._jobs.arrivals.entry(self.id)
            # In this order, so that the last entries are read too.
            ended = await self._has_ended()
            batch = await self._jobs.reading.journal(
                lambda: self._jobs.journal.entries(self.id, after=after, limit=BATCH)
            )
            if batch or ended:
                return batch
            await self._next(arrival)

    async def log(self, *, after: int = 0) -> AsyncGenerator[bytes, None]:
        """The job's log from the byte `after`, as it grows; ends when the job has ended.

        Starts over when another attempt begins. If the job's events cannot be read, yields the
        existing log.
        """
        async with aclosing(self.log_pieces(after=after)) as pieces:
            async for piece in pieces:
                yield piece.data

    async def log_pieces(self, *, after: int = 0) -> AsyncGenerator[LogPiece, None]:
        """`log`, in pieces that tell where one attempt's log ends and the next one's begins."""
        job = await self.look()
        attempt = max(1, job.attempt)
        while True:
            arrival = self._jobs.arrivals.log(self.id)
            path = self._directory(attempt) / "guest.log"
            read = await self._jobs.reading.apart(partial(_read, path, after))
            for start in range(0, len(read), LOG_BYTES):
                data = read[start : start + LOG_BYTES]
                after += len(data)
                yield LogPiece(attempt, after, data)
            if read:
                continue
            if attempt < job.attempt:
                attempt, after = attempt + 1, 0
            elif _is_over(job):
                return
            else:
                # At the end of the file. If the job has ended meanwhile, or another attempt has
                # begun, read the file again: more may have been written before that.
                job = await self.look()
                if attempt >= job.attempt and not _is_over(job):
                    await self._next(arrival)
                    await trio.sleep(GATHER_SECS)

    async def more_log(self, attempt: int, after: int) -> LogPiece:
        """The next piece of an attempt's log, from byte `after`; empty at the end of the last log.

        After an attempt's log comes the next attempt's. While the job has not ended, waits for
        more.
        """
        await trio.lowlevel.checkpoint()
        while True:
            arrival = self._jobs.arrivals.log(self.id)
            # Before the file, so that everything written before the end is read.
            job = await self.look()
            path = self._jobs.root.attempt_dir(self.id, attempt) / "guest.log"
            data = await self._jobs.reading.apart(partial(_read, path, after))
            if data:
                return LogPiece(attempt, after + len(data), data)
            if attempt < job.attempt:
                attempt, after = attempt + 1, 0
            elif _is_over(job):
                return LogPiece(attempt, after, b"")
            else:
                await self._next(arrival)
                await trio.sleep(GATHER_SECS)

    async def artifacts(self) -> Manifest:
        """What the current attempt has left: files in `directory`/artifacts, and what is missing.

        Nothing, while nothing was collected. `PikaciError` if the list of them cannot be read.
        """
        directory = await self.fetch_directory()
        return await self._jobs.reading.apart(lambda: read_artifacts(directory))

    async def tests(self, *outcomes: CaseOutcome) -> list[Case]:
        """The tests of the job's reports, in their order; with `outcomes` only those."""
        found = await self._jobs.reading.journal(
            lambda: self._jobs.journal.cases(self.id, outcomes=outcomes)
        )
        return [case for _, case in found]

    async def usage(self) -> Usage | None:
        """What the job used; None while that is not known, or if its guest does not say."""
        return (await self.look()).usage

    async def output(self) -> OutputRef | None:
        """What the job left for other jobs, or reused; None if nothing, or not yet."""
        return (await self.look()).output

    async def cancel(self, *, reason: str = "asked for", now: bool = False) -> None:
        """Cancel the job, and return when it is dead; `now` skips the grace period."""
        await self._jobs.cancel([self.id], reason=reason, now=now)

    def waits_for(self) -> str:
        """What the job waits for before it can start, in words; empty if nothing."""
        return self._jobs.waits_for(self.id)

    def _directory(self, attempt: int) -> Path:
        return self._jobs.root.attempt_dir(self.id, max(1, attempt))

    def _if_ended(self) -> Job | None:
        return self.job if self.ended else None

    async def _has_ended(self) -> bool:
        known = self._jobs.driver.known(self.id)
        if known is not None:
            return known.ended
        return await self._jobs.reading.journal(lambda: self.ended)

    async def _next(self, arrival: trio.Event) -> None:
        fault = self._jobs.driver.fault(self.id)
        if fault is not None:
            raise fault
        if self._jobs.driver.drives(self.id):
            await arrival.wait()
        else:
            with trio.move_on_after(FOREIGN_SECS):
                await arrival.wait()


def _is_over(job: Job) -> bool:
    """Whether nothing more happens to the job: it has ended, or cannot be read."""
    return job.ended or bool(job.damage)


def _read(path: Path, start: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(READ_BYTES)
    except FileNotFoundError:
        return b""


@dataclass(frozen=True)
class RunHandle:
    """A submission: its jobs, in order."""

    id: str
    jobs: tuple[JobHandle, ...]

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}, {counted(len(self.jobs), 'job')}>"

    async def wait(self) -> list[Job]:
        """Return the jobs when all have ended."""
        return [await job.wait() for job in self.jobs]
