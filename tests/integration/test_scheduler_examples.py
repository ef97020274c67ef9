"""The programs of docs/examples that embed pikaci in a scheduler, with that scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.state_root import default_state_root
from tests.integration.command import SECS, Command, wait_until

pytestmark = pytest.mark.incus

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# Each program, and what its job is there.
JOBS = {
    "apscheduler_nightly.py": 'command="ls && echo nightly"',
    "dask_matrix.py": 'command=f"echo testing with {version}"',
}
APSCHEDULER, DASK = JOBS
TERMINATED = 128 + signal.SIGTERM


class Program:
    """An example as it is, or with another job."""

    def __init__(self, pikaci: Command, base: Path, name: str) -> None:
        self.pikaci = pikaci
        self.base = base
        self.name = name

    def start(self, job: str = "", **env: str) -> subprocess.Popen[str]:
        text = (EXAMPLES / self.name).read_text()
        before = JOBS[self.name]
        assert 1 == text.count(before)
        (self.base / self.name).write_text(text.replace(before, job or before))
        return subprocess.Popen(
            [sys.executable, str(self.base / self.name), ".", "1"],
            cwd=self.pikaci.workspace, env={**self.pikaci.env, **env}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
        )  # fmt: skip

    def begin(self, job: str) -> subprocess.Popen[str]:
        """Start it, and return when it has a guest."""
        begun = self.start(job)
        wait_until(self.pikaci.leases)
        return begun

    def run(self, job: str = "", **env: str) -> tuple[int, str, str]:
        """Its exit code, and what it printed."""
        begun = self.start(job, **env)
        out, told = begun.communicate(timeout=SECS)
        return begun.returncode, out, told


@pytest.fixture(params=list(JOBS))
def program(
    pikaci: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Program:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    pikaci.env["XDG_STATE_HOME"] = str(tmp_path / "state")
    del pikaci.env["PIKACI_STATE_ROOT"]
    pikaci.root = default_state_root(pikaci.workspace)
    return Program(pikaci, tmp_path, request.param)


def test_jobs_are_run(program: Program) -> None:
    """By APScheduler one at a time; by Dask from two worker processes, on one state root."""
    code, out, told = program.run()

    assert 0 == code, told
    if program.name == DASK:
        assert ["3.10: passed", "3.11: passed", "3.12: passed"] == out.splitlines()
    else:
        assert out.splitlines()[0].endswith(": passed")
    assert [] == program.pikaci.leases()


@pytest.mark.examples
def test_jobs_that_do_not_pass(program: Program) -> None:
    """The program gets each verdict; without Incus, it gets an error that says so."""
    failed = program.run('command="exit 7"')
    late = program.run('command="sleep 600", timeout_secs=1')
    fault = program.run(INCUS_SOCKET="/nonexistent")

    assert 0 == failed[0] and ": failed" in failed[1]
    assert 0 == late[0] and ": timed_out" in late[1]
    assert "" == fault[1] and "DaemonUnreachable" in fault[2]
    assert [] == program.pikaci.leases()


@pytest.mark.examples
def test_jobs_that_are_cancelled(program: Program) -> None:
    """By a person, from another terminal."""
    running = program.begin('command="sleep 600"')

    def ended() -> bool:
        program.pikaci("cancel", "--all")
        return running.poll() is not None

    wait_until(ended)
    out, told = running.communicate(timeout=SECS)

    assert 0 == running.returncode, told
    assert ": cancelled" in out
    assert [] == program.pikaci.leases()


@pytest.mark.examples
def test_after_term_nothing_is_left(program: Program) -> None:
    """The scheduler ends, and its jobs with it."""
    running = program.begin('command="sleep 600"')
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=SECS)

    assert TERMINATED == running.returncode, told
    assert [] == program.pikaci.leases()


@pytest.mark.examples
def test_after_kill_nothing_is_left_by_the_next_command(program: Program) -> None:
    """The command resumes the jobs, and deletes their guests."""
    running = program.begin('command="sleep 3; exit 7"')
    guests = program.pikaci.leases()
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=SECS)
    left = program.pikaci.leases()
    program.pikaci("resume")

    assert set(guests) <= set(left)
    assert [] == program.pikaci.leases()


@pytest.mark.parametrize("name", JOBS)
def test_an_example_is_short(name: str) -> None:
    """Under 60 lines."""
    assert len((EXAMPLES / name).read_text().splitlines()) < 60
