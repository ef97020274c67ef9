"""A submission that meets the end of the orchestrator's block: whole, or not there."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from orchestrator import (
    Capacity,
    JobHandle,
    JobSpec,
    Orchestrator,
    PikaciError,
    Request,
    RunHandle,
    Settings,
    UsageError,
)
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.journal import open_journal
from orchestrator.testing import open_fake

PASSES = JobSpec(command="true")
SLEEPS = JobSpec(command="sleep 10000", timeout_secs=100_000)


class Stopper(trio.abc.Instrument):
    """Sets `reached` when a task has been resumed so many times."""

    def __init__(self, times: int) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.reached = trio.Event()
        self._left = times

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self._left -= 1
            if not self._left:
                self.reached.set()


@dataclass
class Met:
    """What became of a submission of two jobs. `early` when the block ended before it did."""

    outcome: RunHandle | PikaciError
    early: bool
    jobs: dict[str, bool]  # whether they have ended
    instances: int


async def submit_and_end(ends: str, times: int) -> Met:
    """End the block when a submission of another task has been resumed so many times."""
    outcomes: list[RunHandle | PikaciError] = []
    done = trio.Event()
    stopper = Stopper(times)

    async def submit(orchestrator: Orchestrator, workspace: Path) -> None:
        stopper.task = trio.lowlevel.current_task()
        try:
            request = Request(workspace, {"one": PASSES, "two": PASSES}, key="once")
            outcomes.append(await orchestrator.submit_run(request))
        except PikaciError as error:
            outcomes.append(error)
        stopper.task = None
        done.set()

    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "workspace").mkdir()
        (base / "workspace" / "file").write_text("x")
        settings = Settings(workspace=base / "workspace", state_root=base / "root")
        async with FakeIncus.open() as fake, trio.open_nursery() as nursery:
            incus = Incus(base / "conf", spawn=fake)
            with trio.CancelScope() as scope:
                try:
                    async with Orchestrator.open(settings, incus=incus) as orchestrator:
                        trio.lowlevel.add_instrument(stopper)
                        nursery.start_soon(submit, orchestrator, settings.workspace)
                        await stopper.reached.wait()
                        early = not done.is_set()
                        match ends:
                            case "with an error":
                                raise ZeroDivisionError
                            case "cancelled":
                                scope.cancel()
                                await trio.sleep_forever()
                            case "detached":
                                orchestrator.detach()
                                await trio.sleep_forever()
                except ZeroDivisionError:
                    pass
            await done.wait()
            trio.lowlevel.remove_instrument(stopper)
            instances = len(fake.instances())
        with open_journal(base / "root" / "journal.sqlite3") as journal:
            jobs = {row.name: row.ended for row in journal.jobs()}
        # Threads that were not waited for may still make their files; trio names them so.
        while any(" from " in thread.name for thread in threading.enumerate()):
            await trio.sleep(0.001)
    return Met(outcomes[0], early, jobs, instances)


@pytest.mark.parametrize("ends", ["normally", "with an error", "cancelled", "detached"])
async def test_a_submission_is_whole_or_not_there(ends: str) -> None:
    """Wherever it is when the block ends: it is refused in words, and left nothing, or it is there.

    Then its jobs have ended with the block, or are the next start's.
    """
    seen: set[type] = set()
    for times in range(1, 100):
        with trio.fail_after(60):
            met = await submit_and_end(ends, times)
        seen.add(type(met.outcome))
        if isinstance(met.outcome, PikaciError):
            assert isinstance(met.outcome, UsageError)
            assert "the orchestrator is closed" == met.outcome.brief
            assert {} == met.jobs
        else:
            assert {"one", "two"} == set(met.jobs)
            assert ends == "detached" or all(met.jobs.values())
        assert ends == "detached" or 0 == met.instances
        if not met.early:
            break

    assert {RunHandle, UsageError} == seen
    assert not met.early


async def test_who_waits_for_room_is_told_when_the_block_ends() -> None:
    """At once, and not when the jobs before it have made room."""
    told: list[UsageError] = []
    async with trio.open_nursery() as nursery:

        async def submit(orchestrator: Orchestrator, running: JobHandle) -> None:
            with pytest.raises(UsageError, match="the orchestrator is closed") as caught:
                await orchestrator.submit(PASSES)
            told.append(caught.value)
            assert not (await running.fetch()).ended
            await running.cancel(now=True)

        with trio.fail_after(60):
            async with open_fake(capacity=Capacity(jobs=1), queue_jobs=1) as (orchestrator, _):
                running = await orchestrator.submit(SLEEPS)
                await orchestrator.submit(PASSES)
                nursery.start_soon(submit, orchestrator, running)
                await trio.testing.wait_all_tasks_blocked(0.05)

    assert 1 == len(told)


async def test_every_way_to_submit_says_that_it_is_closed() -> None:
    """In the same words."""
    async with open_fake() as (orchestrator, _):
        workspace = orchestrator.root.path.parent / "workspace"
    for submit in (
        lambda: orchestrator.submit(PASSES),
        lambda: orchestrator.submit_nowait(PASSES),
        lambda: orchestrator.submit_and_wait(PASSES),
        lambda: orchestrator.submit_run(Request(workspace, {"job": PASSES})),
        lambda: orchestrator.snapshot(),
    ):
        with pytest.raises(UsageError, match="the orchestrator is closed"):
            await submit()
