"""Interrupted at any await of its driver, a job ends once, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from orchestrator.capacity import Capacity
from orchestrator.fake_incus import FakeIncus, words
from orchestrator.job.queue import Queue
from orchestrator.job.task import JobTask
from orchestrator.journal import open_journal
from orchestrator.session.recovery import recover
from states import events as ev
from states.ending import Intent
from states.job import Job
from states.lifecycle import State
from states.outcome import Outcome
from states.spec import JobSpec
from tests.processes import Process, mortal
from tests.quick import run_quickly
from tests.unit.orchestrator.rig import Rig, open_rig

SPEC = JobSpec(command="echo one; sleep 5; echo two")
LOG = b"one\ntwo\n"
FEWEST_STEPS = 40
LATE_SECS = 20.0

# What goes wrong meanwhile.
TROUBLES: dict[str, Callable[[FakeIncus], None]] = {
    "late create": lambda fake: fake.late("create", secs=LATE_SECS),
    "failed start": lambda fake: fake.fail("start", with_error=words.CONNECTION_LOST),
    "busy delete": lambda fake: fake.fail("delete", with_error=words.BUSY_CREATING, times=3),
}


@dataclass
class Life:
    """A job whose driver meets `interrupt` at its `step`th step from an await to the next.

    With `midway` it waits in that next one then, else it is about to go on from the one before.
    """

    interrupt: Callable[[Life], None]
    step: int
    midway: bool
    reached: bool = False
    process: Process = field(default_factory=Process)
    rig: Rig = field(init=False)
    task: JobTask = field(init=False)

    async def live(self, rig: Rig) -> None:
        """Drive the job in the rig, until the driver has ended."""
        self.rig = rig
        self.task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            steps = Steps(nursery, self._tell)
            trio.lowlevel.add_instrument(steps)
            nursery.start_soon(self.process.run, self.task.run)
        trio.lowlevel.remove_instrument(steps)

    def _tell(self, step: int, midway: bool) -> None:
        if (step, midway) == (self.step, self.midway):
            self.reached = True
            self.interrupt(self)


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks below a nursery."""

    def __init__(self, root: trio.Nursery, tell: Callable[[int, bool], None]) -> None:
        self._root = root
        self._tell = tell
        self._steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_below(task):
            self._steps += 1
            self._tell(self._steps, False)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_below(task):
            self._tell(self._steps, True)

    def _is_below(self, task: trio.lowlevel.Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self._root:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None


def everywhere(interrupt: Callable[[Life], None], trouble: str, *, start_again: bool) -> list[Job]:
    """The jobs of one life for every step; each has ended as it must."""
    jobs = []
    for midway in (False, True):
        step = 1
        while True:
            life = Life(interrupt, step, midway)
            with mortal():
                job = run_quickly(partial(_life, life, trouble, start_again))
            if not life.reached:
                break
            jobs.append(job)
            step += 1

        assert step > FEWEST_STEPS
    return jobs


async def _life(life: Life, trouble: str, start_again: bool, base: Path) -> Job:
    async with open_rig(base) as rig:
        TROUBLES[trouble](rig.fake)
        await life.live(rig)
        with open_journal(rig.context.root.journal) as journal:
            after = Rig(base, journal, rig.fake)
            if start_again:
                await recover(after.context, Queue(Capacity(jobs=1)))
            await trio.sleep(LATE_SECS)
            where = f"{life.interrupt.__name__} {'in' if life.midway else 'before'} {life.step}"
            return ended_once(after, where)


def ended_once(rig: Rig, where: str) -> Job:
    """Assert one verdict, a log that is right, no instance and no lease; the job."""
    job = rig.journal.job("r.1")
    asked = [entry for entry in rig.entries() if isinstance(entry, ev.CancelRequested)]
    log = rig.context.root.attempt_dir(job.id, job.attempt) / "guest.log"
    _, _, lines = (log.read_bytes() if log.exists() else b"").partition(b"\n")

    assert {} == rig.fake.instances(), where
    assert [] == rig.journal.open_leases(), where
    if job.state is State.CANCELLED:
        assert 1 == len(asked), where
        assert LOG.startswith(lines), where
    else:
        assert (Outcome.PASSED, LOG) == (job.outcome, lines), where
    return job


def cancel_scope(life: Life) -> None:
    life.process.terminate()


def cancel_job(life: Life) -> None:
    life.task.cancel("a whim")


def cancel_twice(life: Life) -> None:
    life.task.cancel("a whim", now=True)
    life.process.terminate()


def detach(life: Life) -> None:
    life.rig.context.intent.rise(Intent.DETACH)
    life.process.terminate()


def kill(life: Life) -> None:
    life.process.kill()


# To measure the coverage of these lives takes as long as the lives. They reach nothing that others
# do not reach; those of the last test do.
@pytest.mark.no_cover
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("interrupt", [cancel_scope, cancel_job])
def test_cancelled_the_job_is_dead_and_all_of_it_is_gone(
    interrupt: Callable[[Life], None], trouble: str
) -> None:
    """When the driver returns, and with no help of a later start."""
    jobs = everywhere(interrupt, trouble, start_again=False)

    assert {State.CANCELLED, State.RESULT_COLLECTED} == {job.state for job in jobs}


@pytest.mark.no_cover
@pytest.mark.parametrize("trouble", TROUBLES)
def test_cancelled_in_a_hurry_the_rest_is_the_next_start_s(trouble: str) -> None:
    """Nobody waits for an instance that may still appear."""
    jobs = everywhere(cancel_twice, trouble, start_again=True)

    assert {State.CANCELLED, State.RESULT_COLLECTED} == {job.state for job in jobs}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("interrupt", [detach, kill])
def test_left_alone_the_job_comes_to_its_own_end_with_the_next_start(
    interrupt: Callable[[Life], None], trouble: str
) -> None:
    """Whether it was left on purpose, or by kill -9."""
    jobs = everywhere(interrupt, trouble, start_again=True)

    assert {Outcome.PASSED} == {job.outcome for job in jobs}
