"""What happens to a job when its machine, its agent or its daemon goes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trio

from states import events as ev
from states.outcome import Outcome
from states.spec import JobSpec
from tests.calls import call
from tests.integration.running import Runs, infrastructure, log_of, output_of

from .machine import Bench

pytestmark = pytest.mark.vm

COUNT = "for i in $(seq {secs}); do echo $i; sleep 1; done"
SYSTEMD = Path("/run/systemd/system")


async def _in_guest(runs: Runs, *command: str) -> None:
    """Run a command in the only machine; it may break off its own exec."""
    (instance,) = await runs.instances()
    exec_ = ["incus", "exec", "--project", runs.incus.project, instance, "--", *command]
    await trio.run_process(exec_, stdin=subprocess.DEVNULL, capture_stdout=True,
                           capture_stderr=True, check=False)  # fmt: skip


def _numbers(secs: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, secs + 1))


async def test_the_agent_is_restarted(runs: Runs, host: Bench) -> None:
    """The job goes on, and its log has no gap: a broken exec is not the command's end."""
    secs = 20 + 10 * host.slow

    async def restart(entry: ev.Entry) -> None:
        await runs.logged(entry.job, b"\n3\n")
        await _in_guest(runs, "systemctl", "restart", "incus-agent")

    job = await runs.run_one(
        JobSpec(command=COUNT.format(secs=secs), retries=0), on_running=restart
    )

    assert Outcome.PASSED == job.outcome, job.failure
    assert _numbers(secs) == output_of(job)


@pytest.mark.skipif(not SYSTEMD.is_dir(), reason="only systemd starts a killed daemon again")
async def test_the_daemon_is_killed(runs: Runs, host: Bench) -> None:
    """As above; the machine does not notice."""
    secs = 20 + 10 * host.slow

    async def restart(entry: ev.Entry) -> None:
        await runs.logged(entry.job, b"\n3\n")
        kill = ["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "incus.service"]
        await trio.run_process(kill)
        await trio.run_process(["systemctl", "restart", "incus.service"], check=False)

    job = await runs.run_one(
        JobSpec(command=COUNT.format(secs=secs), retries=0), on_running=restart
    )

    assert Outcome.PASSED == job.outcome, job.failure
    assert _numbers(secs) == output_of(job)


@pytest.mark.parametrize(
    "command",
    [["systemctl", "poweroff"], ["sh", "-c", "echo c >/proc/sysrq-trigger"]],
    ids=["powers off", "panics"],
)
async def test_the_guest_goes(runs: Runs, command: list[str]) -> None:
    """No verdict of the command, so none; what it had printed is on the host."""

    async def end(entry: ev.Entry) -> None:
        await runs.logged(entry.job, b"last words\n")
        await _in_guest(runs, *command)

    spec = JobSpec(command="echo last words; sleep 6000", timeout_secs=6000, retries=0)
    job = await runs.run_one(spec, on_running=end)

    assert infrastructure(job)
    assert b"last words\n" in log_of(job)


async def test_the_guest_is_deleted(runs: Runs) -> None:
    """By somebody else, under the job."""

    async def delete(entry: ev.Entry) -> None:
        await runs.logged(entry.job, b"last words\n")
        (instance,) = await runs.instances()
        await call(runs.incus, "delete", "--force", runs.incus.name(instance), deadline_secs=600)

    spec = JobSpec(command="echo last words; sleep 600", retries=0)
    job = await runs.run_one(spec, on_running=delete)

    assert infrastructure(job, "the instance is gone")
