"""The op of docs/examples for Dagster, in runs of Dagster."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from orchestrator.state_root import default_state_root
from tests.integration.command import SECS, Command, wait_until

pytestmark = [pytest.mark.incus, pytest.mark.examples]

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "docs" / "examples" / "dagster_step.py"
DAGSTER = PROJECT / "build" / "dagster" / "bin" / "python"
PROGRAM = """
import sys
from dagster import job
from dagster_step import pikaci

@job
def nightly():
    pikaci()

command, workspace, secs = sys.argv[1:]
asked = {"command": command, "workspace": workspace, "timeout_secs": int(secs)}
config = {"ops": {"pikaci": {"config": asked}}}
ended = nightly.execute_in_process(config, raise_on_error=False)
for event in ended.all_events:
    print(event.event_type_value, event.message or "")
"""


class Dagster:
    def __init__(self, pikaci: Command, base: Path) -> None:
        self.pikaci = pikaci
        self.program = base / "program.py"
        self.program.write_text(PROGRAM)
        self.env = {
            **pikaci.env,
            "DAGSTER_HOME": str(base),
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(EXAMPLE.parent)]),
        }

    def start(self, command: str, secs: int = 600, **env: str) -> subprocess.Popen[str]:
        argv = [str(DAGSTER), str(self.program), command, str(self.pikaci.workspace), str(secs)]
        return subprocess.Popen(
            argv, env={**self.env, **env}, text=True, process_group=0,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Start it, and return when it has a guest."""
        begun = self.start(command)
        wait_until(self.pikaci.leases)
        return begun

    def run(self, command: str, secs: int = 600, **env: str) -> tuple[list[str], str]:
        """The types of the run's events, in order, and all that Dagster says."""
        begun = self.start(command, secs, **env)
        out, told = begun.communicate(timeout=SECS)
        assert 0 == begun.returncode, told
        return [line.split()[0] for line in out.splitlines() if line.strip()], out + told


@pytest.fixture
def dagster(pikaci: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dagster:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    pikaci.env["XDG_STATE_HOME"] = str(tmp_path / "state")
    del pikaci.env["PIKACI_STATE_ROOT"]
    pikaci.root = default_state_root(pikaci.workspace)
    return Dagster(pikaci, tmp_path)


def test_a_step_ends_as_its_job_does(dagster: Dagster) -> None:
    """Passed, failed, timed out. After an infrastructure fault it is tried again."""
    passed, _ = dagster.run("true")
    failed, why = dagster.run("exit 7")
    late, too_late = dagster.run("sleep 600", 1)
    fault, unreachable = dagster.run("true", INCUS_SOCKET="/nonexistent")

    assert "STEP_SUCCESS" in passed
    assert "STEP_FAILURE" in failed and "STEP_RESTARTED" not in failed
    assert "exited with 7" in why
    assert "STEP_FAILURE" in late and "timed out after 1s" in too_late
    assert "STEP_FAILURE" in fault and 2 == fault.count("STEP_RESTARTED")
    assert "DaemonUnreachable" in unreachable
    assert [] == dagster.pikaci.leases()


def test_a_run_is_cancelled_and_terminated(dagster: Dagster) -> None:
    """By a person, whom Dagster then hears of; and by Dagster, with TERM. Nothing is left."""
    running = dagster.begin("sleep 600")
    dagster.pikaci("cancel", "--all")
    out, told = running.communicate(timeout=SECS)
    left = dagster.pikaci.leases()
    terminated = dagster.begin("sleep 600")
    terminated.send_signal(signal.SIGTERM)
    terminated.communicate(timeout=SECS)

    assert "STEP_FAILURE" in out and "cancelled" in out + told
    assert [] == left == dagster.pikaci.leases()


def test_a_run_that_is_killed_leaves_nothing_to_the_next_command(dagster: Dagster) -> None:
    """The command resumes the job, and deletes its guest."""
    running = dagster.begin("sleep 3; exit 7")
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=SECS)
    guests = dagster.pikaci.leases()
    dagster.pikaci("resume")

    assert 1 == len(guests)
    assert [] == dagster.pikaci.leases()


def test_the_example_is_short() -> None:
    """Under 60 lines."""
    assert len(EXAMPLE.read_text().splitlines()) < 60
