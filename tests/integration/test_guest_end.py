"""A guest of our image ends by itself: at its deadline, and when its runner's lease is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from orchestrator.attempt import effects as commands
from orchestrator.contract import contract
from orchestrator.incus import stdin_of
from tests.integration.lab import REAL, SECS, Lab
from tests.integration.test_runner_contract import NONCE, booted

pytestmark = pytest.mark.parametrize("lab", [REAL], indirect=True)
KEY = "user.pikaci.deadline"


def after(secs: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=secs)


async def until_stopped(lab: Lab, name: str) -> datetime:
    """Wait for the guest's end; when it was seen."""
    with trio.fail_after(SECS):
        while (await lab.instance(name))["status"] != "Stopped":
            await trio.sleep(0.1)
    return datetime.now(UTC)


async def test_a_guest_without_a_job_ends_at_its_deadline(lab: Lab) -> None:
    """It reads the deadline when it boots, and nobody has to be there for it."""
    deadline = after(2)
    name = await lab.started(config={KEY: deadline.isoformat()})

    assert deadline.replace(microsecond=0) <= await until_stopped(lab, name)


async def test_a_deadline_that_was_moved_counts(lab: Lab) -> None:
    """A guest that is kept longer than was planned lives until its new deadline."""
    zone = timedelta(hours=5, minutes=30)
    first, second = after(6), after(9)
    name = await lab.started(config={KEY: first.isoformat()})
    moved = (second + zone).strftime("%Y-%m-%dT%H:%M:%S.%f+05:30")
    await lab.run("config", "set", f"local:{name}", f"{KEY}={moved}")
    assert datetime.now(UTC) < first, "too slow to tell"

    assert second.replace(microsecond=0) <= await until_stopped(lab, name)


async def test_a_guest_without_a_deadline_goes_on(lab: Lab) -> None:
    """Nothing in it waits for an end."""
    name = await lab.started()
    waiting = "while pgrep -f '/[p]ikaci-deadline'; do sleep 0.1; done"

    assert 0 == (await lab.exec(name, "sh", "-c", waiting)).exit_code
    assert "Running" == (await lab.instance(name))["status"]


async def test_a_guest_ends_with_its_runners_lease(lab: Lab, tmp_path: Path) -> None:
    """Under a job that runs on, long before the deadline; the log so far is still there."""
    job = await booted(lab, tmp_path, "echo begun; sleep 300")
    stdin = commands.runner_stdin(job.plan, NONCE, {}, lease_secs=2)
    ended = await lab.incus.perform(commands.run(job.plan, stdin=stdin_of(lambda: stdin)))
    await until_stopped(lab, job.plan.instance)
    log = await lab.incus.perform(commands.pull_log(job.plan, f"{contract().private}/guest.log"))

    assert b"begun" == ended.stdout.splitlines()[1]
    assert ended.stdout == log.stdout
    assert 0 != ended.exit_code
