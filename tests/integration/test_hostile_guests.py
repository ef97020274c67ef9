"""Guests that somebody else stops, freezes and deletes, and that eat what they can get."""

from __future__ import annotations

import resource
from functools import partial

import pytest
import trio

from orchestrator.incus.errors import IncusError
from orchestrator.incus.retries import retrying
from states import events as ev
from states.outcome import FailureKind, Outcome
from states.spec import Deadlines, JobSpec
from tests.calls import call
from tests.integration.command import SECS, Command
from tests.integration.running import Runs, infrastructure, log_of, output_of

pytestmark = pytest.mark.incus


async def test_a_guest_that_somebody_deletes_is_no_test_failure(runs: Runs) -> None:
    """The message says that it is gone; what it had printed is on the host."""

    async def delete(entry: ev.Entry) -> None:
        await runs.logged(entry.job, b"last words\n")
        (instance,) = await runs.instances()
        await call(runs.incus, "delete", "--force", runs.incus.name(instance), deadline_secs=60)

    job = await runs.run_one(JobSpec(command="echo last words; sleep 600"), on_running=delete)

    assert infrastructure(job, "the instance is gone")
    assert b"last words\n" == output_of(job)


async def freeze(runs: Runs, job: str) -> None:
    await runs.logged(job, b"last words\n")
    (instance,) = await runs.instances()
    # The kernel may not come to freeze all processes of a guest in the time that LXC gives it.
    pause = partial(call, runs.incus, "pause", runs.incus.name(instance))
    await retrying(pause, on=(IncusError,), secs=60)


async def test_a_frozen_guest_is_waited_for_up_to_the_host_s_limit(runs: Runs) -> None:
    """It may be thawed; at the limit the message says what it is, and it goes."""
    spec = JobSpec(
        command="echo last words; sleep 600",
        timeout_secs=1,
        deadlines=Deadlines(grace_secs=1, run_margin_secs=2),
    )

    job = await runs.run_one(spec, on_running=lambda entry: freeze(runs, entry.job))

    assert infrastructure(job, "within 4 s", "the instance is frozen")
    assert "deadlines.run_margin_secs" in (job.failure.resolution if job.failure else "")
    assert b"last words\n" == output_of(job)


async def test_a_guest_that_is_thawed_goes_on(runs: Runs) -> None:
    """A freeze is no end: the job's own verdict and all of its log arrive."""

    async def freeze_and_thaw(entry: ev.Entry) -> None:
        await freeze(runs, entry.job)
        (instance,) = await runs.instances()
        await trio.sleep(1)
        await call(runs.incus, "resume", runs.incus.name(instance), deadline_secs=60)

    spec = JobSpec(command="echo last words; sleep 1; echo more")

    job = await runs.run_one(spec, on_running=freeze_and_thaw)

    assert (Outcome.PASSED, b"last words\nmore\n") == (job.outcome, output_of(job))


@pytest.mark.parametrize("verb", ["pause", "stop"])
def test_a_guest_that_is_frozen_or_stopped_can_be_cancelled(pikaci: Command, verb: str) -> None:
    """It is killed with its instance; the verdict comes at once, and nothing is left."""
    running = pikaci.run_until("running", "run", "--", "echo one; trap '' TERM; sleep 600 & wait")
    (instance,) = pikaci.leases()
    while "one" not in pikaci("logs").stdout:
        pass
    force = ["--force"] if verb == "stop" else []
    pikaci.incus(verb, *force, instance)

    asked = pikaci("cancel", "--all")
    running.communicate(timeout=SECS)

    assert (0, []) == (asked.returncode, pikaci.leases())
    assert "one\n" in pikaci("logs").stdout
    # A guest that was stopped may be found gone before the request comes, or after it.
    assert running.returncode in ({130} if verb == "pause" else {4, 130})


async def test_a_command_that_the_kernel_killed_for_memory_is_told_so(runs: Runs) -> None:
    """The verdict is the command's, with what Incus saw; a kill by itself has no such words."""
    eats = JobSpec(command="echo begun; head -c 400M /dev/zero | tail", memory="128MiB")
    kills = JobSpec(command="kill -KILL $$")

    jobs = await runs.run({"eats": eats, "kills": kills})

    for job in jobs.values():
        assert (Outcome.FAILED, 137) == (job.outcome, job.exit_code)
        assert job.failure is not None
        assert FailureKind.TEST == job.failure.kind
    assert "all its memory (128MiB)" in jobs["eats"].hint
    assert "" == jobs["kills"].hint
    assert b"begun\n" in log_of(jobs["eats"])


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(256 << 20, id="256 MiB"),
        pytest.param(1 << 30, id="1 GiB", marks=pytest.mark.hostile),
    ],
)
async def test_a_large_log_is_whole_and_costs_no_memory(runs: Runs, size: int) -> None:
    """It streams to the host's disk."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    job = await runs.run_one(JobSpec(command=f"head -c {size} /dev/zero", timeout_secs=120))

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (Outcome.PASSED, ()) == (job.outcome, job.warnings)
    with open(f"{job.artifacts}/guest.log", "rb") as log:
        header = log.readline()
        assert size == log.seek(0, 2) - len(header)
    assert grown < 100 * 1024, "KiB"
