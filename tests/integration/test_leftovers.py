"""Runs that are interrupted, killed, resumed and cancelled, on the real Incus."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.journal import open_journal
from tests.forks import Forked
from tests.integration.command import AT_THE_GATE, PIKACI, SECS, Command, wait_until

TRAPS = "trap 'echo told; exit' TERM; echo one; sleep 60 & wait"


def kill(running: Forked) -> None:
    running.kill()
    running.communicate(timeout=SECS)


@pytest.mark.incus
def test_a_killed_run_is_resumed(pikaci: Command) -> None:
    """The job is followed to its end: the log has no gap, and the exit code is the job's."""
    kill(pikaci.run_until("running", "run", "--", f"echo one; {AT_THE_GATE}; echo two; exit 7"))
    left = pikaci.leases()

    resumed = pikaci.run_until("was running", "resume")
    pikaci.open_gate()
    _, errors = resumed.communicate(timeout=SECS)

    assert 1 == len(left)
    assert (1, "") == (resumed.returncode, errors)
    assert ["one", "two"] == pikaci("logs").stdout.splitlines()[1:]
    assert [] == pikaci.leases()
    assert "no job to resume" in pikaci("resume").stdout


@pytest.mark.incus
def test_a_run_goes_on_with_what_a_killed_one_left(pikaci: Command) -> None:
    """Beside its own jobs, and without waiting for it."""
    kill(pikaci.run_until("running", "run", "--", f"{AT_THE_GATE}; echo late"))
    (left,) = pikaci.leases()

    running = pikaci.run_until("running", "run", "--", AT_THE_GATE)
    pikaci.incus("exec", left, "--", "touch", "/tmp/go")
    wait_until(lambda: left not in pikaci.leases())
    pikaci.open_gate()
    running.communicate(timeout=SECS)

    assert 0 == running.returncode
    listed = json.loads(pikaci("list", "--output", "json").stdout)
    assert ["passed", "passed"] == [run["outcome"] for run in listed]


@pytest.mark.incus
def test_a_job_is_cancelled_from_another_process(pikaci: Command) -> None:
    """Who runs it says so, as after an interrupt; asking twice is harmless."""
    running = pikaci.run_until("running", "run", "--", TRAPS)
    wait_until(pikaci.log_lines)

    asked = pikaci("cancel", "--all")
    again = pikaci("cancel", "--all")
    running.communicate(timeout=SECS)

    assert (0, 0, 130) == (asked.returncode, again.returncode, running.returncode)
    assert "cancelled" in asked.stdout
    assert "no job is running or queued" in again.stdout
    assert "one\ntold\n" in pikaci("logs").stdout


@pytest.mark.incus
def test_a_job_of_a_dead_process_is_cancelled(pikaci: Command) -> None:
    """Its processes are told, its log is saved, its guest goes."""
    running = pikaci.run_until("running", "run", "--", TRAPS)
    wait_until(pikaci.log_lines)
    kill(running)
    run = json.loads(pikaci("list", "--output", "json").stdout)[0]["run"]

    asked = pikaci("cancel", run)

    assert 0 == asked.returncode
    assert "cancelled" in asked.stdout
    assert "one\ntold\n" in pikaci("logs").stdout
    assert [] == pikaci.leases()


@pytest.mark.incus
def test_what_a_lost_state_root_left_is_reaped_when_it_is_past_its_deadline(
    pikaci: Command, tmp_path: Path
) -> None:
    """Not before, not without being asked, and not by name."""
    kill(pikaci.run_until("running", "run", "--", "sleep 60"))
    (name,) = pikaci.leases()
    (tmp_path / "other").mkdir()
    other = Command(tmp_path / "other")

    before = other("reap", "--expired")
    key = ["incus", "config", "set", "--project", "pikaci", f"local:{name}"]
    subprocess.run(
        [*key, "user.pikaci.deadline=2020-01-01T00:00:00+00:00"], check=True, timeout=SECS
    )
    ours = other("reap")
    tried = other("reap", "--expired", "--dry-run")
    spared = pikaci.leases()
    done = other("reap", "--expired")

    assert [0, 0, 0, 0] == [one.returncode for one in (before, ours, tried, done)]
    assert (False, False) == (name in before.stdout, name in ours.stdout)
    assert (True, True) == (name in tried.stdout, name in done.stdout)
    assert [name] == spared
    assert [] == pikaci.leases()
    assert 4 == pikaci("resume").returncode, "the guest is gone, and the job says so"


@pytest.mark.incus
def test_a_service_takes_over_and_hands_on(pikaci: Command) -> None:
    """What a killed run left goes on; TERM ends the service, and not the job."""
    command = f"echo one; {AT_THE_GATE}; echo two"
    kill(pikaci.run_until("running", "run", "--", command))
    service = pikaci.run_until("serving", "serve")

    given = pikaci("run", "--", "true")
    second = pikaci("serve")
    service.send_signal(signal.SIGTERM)
    said, _ = service.communicate(timeout=SECS)
    left = pikaci.leases()
    pikaci.open_gate()
    again = pikaci.run_until("passed", "serve")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=SECS)

    assert (0, 2) == (given.returncode, second.returncode)
    assert f"`pikaci serve`, process {service.pid}" in second.stderr
    assert (0, 0) == (service.returncode, again.returncode)
    assert "the next start resumes this job" in said
    assert 1 == len(left)
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        first = journal.jobs()[0].id
    assert ["one", "two"] == pikaci("logs", first).stdout.splitlines()[1:]


@pytest.mark.incus
def test_a_service_has_the_root_for_itself(pikaci: Command) -> None:
    """It does not begin beside a run, whose process it names."""
    running = pikaci.run_until("running", "run", "--", "sleep 60")

    refused = pikaci("serve")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=SECS)

    assert 2 == refused.returncode
    assert f"by process {running.pid}" in refused.stderr


@pytest.mark.incus
def test_resume_leaves_a_living_run_alone(pikaci: Command) -> None:
    """It names who has it, and has nothing to do itself."""
    running = pikaci.run_until("running", "run", "--", "sleep 60")

    beside = pikaci("resume")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=SECS)

    assert 0 == beside.returncode
    assert f"belongs to process {running.pid}: skipped" in beside.stdout
    assert "no job to resume" in beside.stdout
    assert 130 == running.returncode


@pytest.mark.incus
def test_resume_says_what_it_could_not_do(pikaci: Command) -> None:
    """Where no daemon answers, no job is called ended, and no instance deleted."""
    pikaci.write(
        'schema = 1\n[jobs.a]\ncommand = "sleep 60"\n[jobs.a.deadlines]\ndaemon_secs = 1\n'
    )
    kill(pikaci.run_until("running", "run"))

    done = pikaci("resume", INCUS_SOCKET=str(pikaci.root / "no.socket"))

    assert 4 == done.returncode
    assert "pikaci doctor" in done.stderr + done.stdout
    assert 1 == len(pikaci.leases())
    pikaci("resume")


@pytest.mark.incus
def test_a_resume_whose_output_nobody_reads_takes_signals(pikaci: Command) -> None:
    """As `run` does: the job is cancelled, and the process ends."""
    kill(pikaci.run_until("running", "run", "--", "sleep 60"))
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    argv = [PIKACI, "resume", "--output", "jsonl"]
    resumed = subprocess.Popen(argv, cwd=pikaci.workspace, env=pikaci.env, stdout=write)
    try:
        wait_until(lambda: follows(resumed.pid))
        resumed.terminate()
        code = resumed.wait(SECS)
    finally:
        resumed.kill()
        os.close(read)
        os.close(write)

    assert 130 == code
    assert [] == pikaci.leases()


def follows(pid: int) -> bool:
    """Whether the process has a child that follows a job's log."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = (Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    return any(b"follow" in line.split(b"\0") for line in lines)
