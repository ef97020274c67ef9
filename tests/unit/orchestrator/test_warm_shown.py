"""What people and programs are told of warm guests that wait for jobs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from click.testing import CliRunner
from trio.testing import MockClock

from orchestrator import JobSpec, Orchestrator, WarmGuests
from orchestrator.cli import pikaci
from orchestrator.journal.stamp import now
from orchestrator.testing import open_fake
from states import events as ev
from tests.unit.orchestrator.warm_guests import ONE, PASSES, until, until_idle


def said(orchestrator: Orchestrator, *words: str) -> str:
    root = ("--state-root", str(orchestrator.root.path))
    return CliRunner().invoke(pikaci, [*words, *root], catch_exceptions=False).output


async def test_the_list_counts_them(autojump_clock: MockClock) -> None:
    """On its last line, if there are any. For programs it stays a list of runs."""
    async with open_fake(warm=WarmGuests(size=2)) as (orchestrator, _):
        assert "warm" not in said(orchestrator, "list", "--output", "json")
        for _ in range(2):
            await orchestrator.submit_and_wait(PASSES)
        await until(lambda: orchestrator.statistics().warm == 2)
        lines = said(orchestrator, "list").splitlines()
        runs = json.loads(said(orchestrator, "list", "--output", "json"))

        assert 4 == len(lines)
        assert "2 warm guests for the next jobs" == lines[-1]
        assert 2 == len(runs)


async def test_the_list_says_on_which_hosts_they_are(autojump_clock: MockClock) -> None:
    """If one is not on this machine. Those of a dead process are for no job."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        await until_idle(fake)
        for number, host, session in ((1, "build", orchestrator.session), (2, "", "dead")):
            lease = {"instance": f"pikaci-{number}", "deadline": datetime.now(UTC), **now()}
            await orchestrator.journal.append(
                ev.LeaseOpened(job="", host=host, session=session, **lease)
            )
        line = said(orchestrator, "list").splitlines()[-1]

        assert "2 warm guests for the next jobs: 1 on build, 1 on local" == line


async def test_without_a_pool_nothing_is_said(autojump_clock: MockClock) -> None:
    """There is one line for the run, and one above it."""
    async with open_fake() as (orchestrator, _):
        await orchestrator.submit_and_wait(PASSES)

        assert 2 == len(said(orchestrator, "list").splitlines())


async def test_statistics_tell_guests_that_boot_from_those_that_wait(
    autojump_clock: MockClock,
) -> None:
    """A job can claim those that wait; one that has a job is counted no more."""
    async with open_fake(warm=ONE) as (orchestrator, fake):

        def numbers() -> tuple[int, int]:
            found = orchestrator.statistics()
            return found.warm, found.booting

        assert (0, 0) == numbers()
        fake.late("create", secs=1)  # the job's own guest
        fake.late("create", secs=20)
        job = await orchestrator.submit(JobSpec(command="sleep 50"))
        await until(lambda: numbers() == (0, 1))
        await until(lambda: numbers() == (1, 0))
        await job.wait()
        fake.late("create", secs=20)
        other = await orchestrator.submit(JobSpec(command="sleep 50"))
        await until(lambda: numbers() == (0, 1))

        assert other.job.warm_ms is not None
