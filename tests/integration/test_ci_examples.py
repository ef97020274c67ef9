"""The steps of other CI systems in docs/examples, as those systems call them.

Each passes, fails, times out, meets a fault, is cancelled and is killed, and leaves no guest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.command import AT_THE_GATE, PIKACI, SECS, Command, wait_until

pytestmark = pytest.mark.incus

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# Of GitLab's choice, so that no program returns them by accident.
BUILD_FAILURE, SYSTEM_FAILURE = 87, 88
FAULT = {"INCUS_SOCKET": "/nonexistent"}


class Step:
    """A step of one of these systems; each `start` is a call of its script."""

    def __init__(self, pikaci: Command, base: Path) -> None:
        self.pikaci = pikaci
        self.base = base
        path = f"{Path(PIKACI).parent}{os.pathsep}{pikaci.env['PATH']}"
        self.env = {**pikaci.env, "PATH": path, "XDG_STATE_HOME": str(base / "state")}
        del self.env["PIKACI_STATE_ROOT"]
        self.name()

    def name(self) -> None:
        """Set the variables of the system, and `pikaci.root`."""
        raise NotImplementedError

    def argv(self, command: str) -> list[str]:
        raise NotImplementedError

    def start(self, command: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(command),
            cwd=self.pikaci.workspace,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def run(self, command: str, **env: str) -> tuple[int, str]:
        step = self.start(command, **env)
        out, _ = step.communicate(timeout=SECS)
        return step.returncode, out

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Start it, and return when its command runs."""
        step = self.start(f"echo begun; {command}")
        wait_until(lambda: b"begun" in self.pikaci.log_lines())
        return step


class GitLab(Step):
    code_file: Path

    def name(self) -> None:
        self.code_file = self.base / "code"
        self.env |= {
            "BUILD_FAILURE_EXIT_CODE": str(BUILD_FAILURE),
            "SYSTEM_FAILURE_EXIT_CODE": str(SYSTEM_FAILURE),
            "BUILD_EXIT_CODE_FILE": str(self.code_file),
            "CUSTOM_ENV_CI_JOB_ID": "17",
            "CUSTOM_ENV_CI_PROJECT_DIR": str(self.pikaci.workspace),
        }
        self.pikaci.root = self.base / "state" / "pikaci-gitlab" / "17"
        self.stage = "build_script"

    def argv(self, command: str) -> list[str]:
        script = self.base / "script"
        where = self.pikaci.workspace
        script.write_text(
            "#!/usr/bin/env bash\n\nset -eo pipefail\nset +o noclobber\n"
            f"export CI_PROJECT_DIR={where}\nexport TOKEN=s3cret\n"
            f": | eval $'cd \"{where}\"\\n{command}\\n'\nexit 0\n"
        )
        return [str(EXAMPLES / "gitlab-executor"), "run", str(script), self.stage]

    def other(self, verb: str) -> int:
        return self.call(verb).returncode

    def call(self, verb: str) -> subprocess.CompletedProcess[bytes]:
        argv = [str(EXAMPLES / "gitlab-executor"), verb]
        return subprocess.run(argv, env=self.env, cwd=self.base, timeout=SECS, capture_output=True)


class Buildkite(Step):
    def name(self) -> None:
        self.env |= {
            "BUILDKITE_AGENT_NAME": "agent-1",
            "BUILDKITE_JOB_ID": "0198-4c1e",
            "BUILDKITE_BRANCH": "main",
            "BUILDKITE_COMMIT": "0" * 40,
            "CI": "true",
            "BUILDKITE_BUILD_CHECKOUT_PATH": str(self.pikaci.workspace),
        }
        self.pikaci.root = self.base / "state" / "pikaci-buildkite" / "agent-1"

    def argv(self, command: str) -> list[str]:
        self.env["BUILDKITE_COMMAND"] = command
        return [str(EXAMPLES / "buildkite-command")]


@pytest.fixture
def gitlab(pikaci: Command, tmp_path: Path) -> GitLab:
    return GitLab(pikaci, tmp_path)


@pytest.fixture
def buildkite(pikaci: Command, tmp_path: Path) -> Buildkite:
    return Buildkite(pikaci, tmp_path)


def runs(step: Step) -> int:
    """How many runs the journal has."""
    listed = step.pikaci("list", "--state-root", str(step.pikaci.root), "--output", "json")
    return len(json.loads(listed.stdout))


def there(guests: list[str]) -> list[str]:
    """Those of the guests that Incus still has."""
    listed = subprocess.run(
        ["incus", "list", "local:", "--project", "pikaci", "-f", "csv", "-c", "n"],
        capture_output=True, text=True, check=True, timeout=SECS,
    )  # fmt: skip
    return [name for name in listed.stdout.split() if name in guests]


def test_gitlab_s_scripts_run_in_guests(gitlab: GitLab) -> None:
    """In the project's directory, with the variables; what they leave comes back, and no more."""
    (gitlab.pikaci.workspace / "source").write_text("text\n")
    driver = json.loads(gitlab.call("config").stdout)
    assert ("pikaci", True) == (driver["driver"]["name"], driver["builds_dir_is_shared"])
    assert 0 == gitlab.other("prepare")
    passed = gitlab.run(
        "cat source; echo $TOKEN; id -un; pwd; touch made; cp source /artifacts/out"
    )
    code = gitlab.code_file.read_text()
    gitlab.stage = "after_script"
    after = gitlab.run("ls")
    gitlab.stage = "get_sources"
    outside = gitlab.run("pwd")

    assert 0 == passed[0], passed[1]
    assert ["text", "s3cret", "pikaci", "/workspace/snapshot"] == passed[1].splitlines()
    assert "0\n" == code
    assert "text\n" == (gitlab.pikaci.workspace / "pikaci-artifacts" / "out").read_text()
    assert (0, ["pikaci-artifacts", "source"]) == (after[0], after[1].splitlines())
    assert (0, f"{gitlab.pikaci.workspace}\n") == outside
    journal = (gitlab.pikaci.root / "journal.sqlite3").read_bytes()
    assert b"s3cret" not in journal
    assert [] == gitlab.pikaci.leases()
    assert 0 == gitlab.other("cleanup")
    assert not gitlab.pikaci.root.exists()


def test_gitlab_is_told_whose_failure_it_is(gitlab: GitLab) -> None:
    """With the script's own code in the file; a fault of the runner's is a system failure."""
    failed = gitlab.run("exit 7")
    code = gitlab.code_file.read_text()
    again = gitlab.run("exit 7")
    once = runs(gitlab)
    gitlab.env["CUSTOM_ENV_CI_JOB_ID"] = "18"
    late = gitlab.run("sleep 600", CUSTOM_ENV_CI_JOB_TIMEOUT="1")
    left = gitlab.pikaci.leases()
    gitlab.pikaci.root = gitlab.pikaci.root.with_name("18")
    fault = gitlab.run("true", CUSTOM_ENV_CI_JOB_ID="19", **FAULT)

    assert (BUILD_FAILURE, "7\n") == (failed[0], code)
    assert (BUILD_FAILURE, 1) == (again[0], once)
    assert BUILD_FAILURE == late[0]
    assert SYSTEM_FAILURE == fault[0]
    assert [] == left == gitlab.pikaci.leases()


def test_gitlab_cancels_and_kills(gitlab: GitLab) -> None:
    """After TERM nothing is left; after KILL nothing after `cleanup`, which GitLab runs then."""
    step = gitlab.begin("sleep 600")
    step.send_signal(signal.SIGTERM)
    step.communicate(timeout=SECS)
    left = gitlab.pikaci.leases()
    assert 0 == gitlab.other("cleanup")
    killed = gitlab.begin("sleep 600")
    guests = gitlab.pikaci.leases()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=SECS)
    cleaned = gitlab.other("cleanup")

    assert (SYSTEM_FAILURE, []) == (step.returncode, left)
    assert (0, []) == (cleaned, there(guests))
    assert 1 == len(guests)


def test_buildkite_s_command_runs_in_a_guest(buildkite: Buildkite) -> None:
    """With its own exit code, and with codes of their own for what is not the command's."""
    passed = buildkite.run("echo $BUILDKITE_BRANCH; id -un; echo left >/artifacts/out")
    again = buildkite.run("echo $BUILDKITE_BRANCH; id -un; echo left >/artifacts/out")
    out = (buildkite.pikaci.workspace / "pikaci-artifacts" / "out").read_text()
    once = runs(buildkite)
    ends: dict[str, Callable[[], tuple[int, str]]] = {
        "failed": lambda: buildkite.run("exit 7"),
        "timed out": lambda: buildkite.run("sleep 600", PIKACI_TIMEOUT="1s"),
        "fault": lambda: buildkite.run("true", **FAULT),
    }
    codes = {}
    for number, (name, end) in enumerate(ends.items()):
        buildkite.env["BUILDKITE_JOB_ID"] = f"job-{number}"
        codes[name] = end()[0]

    assert (0, ["main", "pikaci"]) == (passed[0], passed[1].splitlines())
    assert (0, "left\n", 1) == (again[0], out, once)
    assert {"failed": 7, "timed out": 240, "fault": 241} == codes
    assert [] == buildkite.pikaci.leases()


def test_buildkite_cancels_and_kills(buildkite: Buildkite) -> None:
    """After TERM nothing is left; after KILL nothing after the agent's next step."""
    step = buildkite.begin("sleep 600")
    step.send_signal(signal.SIGTERM)
    step.communicate(timeout=SECS)
    left = buildkite.pikaci.leases()
    buildkite.env["BUILDKITE_JOB_ID"] = "next"
    killed = buildkite.start("sleep 600")
    wait_until(buildkite.pikaci.leases)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=SECS)
    buildkite.env["BUILDKITE_JOB_ID"] = "third"
    third = buildkite.run("true")

    assert (243, []) == (step.returncode, left)
    assert (0, []) == (third[0], buildkite.pikaci.leases())


class Cron(Step):
    date = "2026-01-01"

    def name(self) -> None:
        self.env["PIKACI_STATE_ROOT"] = str(self.pikaci.root)

    def argv(self, command: str) -> list[str]:
        job = {"command": command, "timeout_secs": 600}
        if command.startswith("late"):
            job = {"command": "sleep 600", "timeout_secs": 1}
        keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in job.items())
        self.pikaci.write(f"schema = 1\n[jobs.test]\n{keys}\n")
        return [str(EXAMPLES / "cron-nightly"), str(self.pikaci.workspace), self.date]


@pytest.fixture
def cron(pikaci: Command, tmp_path: Path) -> Cron:
    return Cron(pikaci, tmp_path)


def test_cron_says_nothing_of_a_good_night(cron: Cron) -> None:
    """And what failed of a bad one; the same night again is the same run."""
    bad = cron.run("echo bad; exit 1")
    again = cron.run("echo bad; exit 1")
    once = runs(cron)
    cron.date = "2026-01-02"
    late = cron.run("late")
    cron.date = "2026-01-03"
    fault = cron.run("true", **FAULT)
    good = cron.run("true")

    assert 1 == bad[0] and "bad" in bad[1]
    assert (1, 1) == (again[0], once)
    assert 3 == late[0] and "timed out after 1s" in late[1]
    assert 4 == fault[0] and "pikaci:" in fault[1]
    assert (0, "") == good
    assert [] == cron.pikaci.leases()


def test_a_night_that_is_ended_leaves_nothing(cron: Cron) -> None:
    """After TERM, as from timeout(1) to all its processes, its jobs are dead, and cron mails that."""
    night = cron.begin("sleep 600")
    os.killpg(night.pid, signal.SIGTERM)
    told, _ = night.communicate(timeout=SECS)

    assert 130 == night.returncode
    assert "cancelled" in told
    assert [] == cron.pikaci.leases()


def test_a_night_that_was_killed_goes_on(cron: Cron) -> None:
    """When it is started again, in its guest, and with its verdict."""
    command = f"{AT_THE_GATE}; exit 7"
    killed = cron.begin(command)
    guests = cron.pikaci.leases()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=SECS)
    there = cron.pikaci.leases()
    cron.pikaci.open_gate()
    code, out = cron.run(f"echo begun; {command}")

    assert (1, guests) == (len(guests), there)
    assert 1 == code and "exited with 7" in out
    assert 1 == runs(cron)
    assert [] == cron.pikaci.leases()


@pytest.mark.parametrize("example", ["gitlab-executor", "buildkite-command", "cron-nightly"])
def test_an_example_is_short(example: str) -> None:
    """Under 70 lines, with what is to be known of it."""
    assert len((EXAMPLES / example).read_text().splitlines()) < 70
