"""What a job waits for before it asks for a slot: the jobs that it needs, and their outputs."""

from __future__ import annotations

import trio

from orchestrator.errors import one_error
from orchestrator.job.record import Record
from orchestrator.journal import Journal
from orchestrator.words import job_word, which_ended
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.outcome import Failure, FailureKind, Verdict

# A job of the same run is nearly always in the same process, which tells its end; but not after a
# resume that left one of them to a process that has its secrets.
LOOK_AGAIN_SECS = 15.0


async def needed_jobs(journal: Journal, record: Record) -> dict[str, Job]:
    """The jobs that this one needs, by name: all of them, or only those until one did not pass."""
    found: dict[str, Job] = {}
    if not record.job.needs:
        return found
    since, last = trio.current_time(), ""

    async def wait(name: str, id: str) -> None:
        nonlocal last
        job = await _at_its_end(journal, id)
        found[name], last = job, id
        if job.verdict is not Verdict.PASSED:
            nursery.cancel_scope.cancel()

    try:
        with one_error():
            async with trio.open_nursery() as nursery:
                for name, id in record.job.needs.items():
                    nursery.start_soon(wait, name, id)
    finally:
        record.waited(ev.WaitFor.INPUT, since, after=last)
    return found


async def _at_its_end(journal: Journal, id: str) -> Job:
    while True:
        ending = journal.ending(id)
        job = await trio.to_thread.run_sync(_look, journal, id)
        if job.ended or job.damage:
            return job
        with trio.move_on_after(LOOK_AGAIN_SECS):
            await ending.wait()


def _look(journal: Journal, id: str) -> Job:
    row = journal.find(id)
    return Job(id=id, damage="it was deleted") if row is None else journal.look(row)


def skipped_because(name: str, job: Job) -> Failure:
    """Why a job is skipped that needs the other one, which did not pass."""
    return Failure(
        kind=FailureKind.SKIPPED,
        phase=State.SUBMITTED,
        message=f"needs {name}, {which_ended(job_word(job))}",
    )
