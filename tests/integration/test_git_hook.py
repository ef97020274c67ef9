"""The git hook of docs/examples, with a real git."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.command import AT_THE_GATE, PIKACI, SECS, Command, wait_until

pytestmark = pytest.mark.incus

HOOK = Path(__file__).parents[2] / "docs" / "examples" / "git-pre-push"
JOB = 'schema = 1\n[jobs.test]\ncommand = "test -e good"\n'
LATE = 'schema = 1\n[jobs.test]\ncommand = "sleep 600"\ntimeout_secs = 1\n'
WAITS = f'schema = 1\n[jobs.test]\ncommand = "echo begun; {AT_THE_GATE}"\n'


class Project:
    """A repository with the hook, and the one that it pushes to."""

    def __init__(self, pikaci: Command, base: Path) -> None:
        self.pikaci = pikaci
        path = f"{Path(PIKACI).parent}{os.pathsep}{pikaci.env['PATH']}"
        self.env = {**pikaci.env, "PATH": path, "GIT_CONFIG_GLOBAL": "/dev/null"}
        pikaci.write(JOB)
        there = str(base / "there.git")
        for words in (
            ("init", "--bare", there),
            ("init",),
            ("remote", "add", "origin", there),
            ("add", "--all"),
            ("commit", "--message", "one"),
        ):
            assert 0 == self.git(*words).returncode
        (pikaci.workspace / ".git" / "hooks" / "pre-push").symlink_to(HOOK)

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """git, in a process group of its own, as a shell starts it."""
        who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        return subprocess.Popen(
            ["git", *who, *words], cwd=self.pikaci.workspace, env={**self.env, **env}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
        )  # fmt: skip

    def git(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        begun = self.start(*words, **env)
        out, told = begun.communicate(timeout=SECS)
        return subprocess.CompletedProcess(words, begun.returncode, out, told)

    def push(self, **env: str) -> subprocess.CompletedProcess[str]:
        return self.git("push", "origin", "HEAD:main", **env)

    def begin_push(self) -> subprocess.Popen[str]:
        """Start it, and return when its job runs."""
        self.pikaci.write(WAITS)
        begun = self.start("push", "origin", "HEAD:main")
        wait_until(lambda: b"begun" in self.pikaci.log_lines())
        return begun

    def pushed(self) -> bool:
        return "refs/heads/main" in self.git("ls-remote", "origin").stdout


@pytest.fixture
def project(pikaci: Command, tmp_path: Path) -> Project:
    return Project(pikaci, tmp_path)


def test_only_what_passes_is_pushed(project: Project) -> None:
    """What fails is not pushed, nor what could not be run; each is told as what it is."""
    failed = project.push()
    broken = project.push(INCUS_SOCKET="/nonexistent")
    project.pikaci.write(LATE)
    late = project.push()
    assert not project.pushed()
    project.pikaci.write(JOB)
    (project.pikaci.workspace / "good").touch()
    passed = project.push()

    assert failed.returncode and "not pushed: a job did not pass" in failed.stderr
    assert broken.returncode and "could not be run (exit code 4)" in broken.stderr
    assert late.returncode and "not pushed: a job did not pass" in late.stderr
    assert "timed out after 1s" in late.stderr
    assert 0 == passed.returncode, passed.stderr
    assert project.pushed()


def hook_of(git: subprocess.Popen[str]) -> int:
    """The process of the hook that this git has started."""
    children = Path(f"/proc/{git.pid}/task/{git.pid}/children").read_text().split()
    hooks = [pid for pid in children if b"pre-push" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    (hook,) = hooks
    return int(hook)


def test_a_push_that_is_broken_off_leaves_nothing(project: Project) -> None:
    """The hook ends when its jobs are dead, and says why nothing is pushed."""
    pushing = project.begin_push()
    os.kill(hook_of(pushing), signal.SIGTERM)
    _, told = pushing.communicate(timeout=SECS)

    assert pushing.returncode and "not pushed: interrupted" in told
    assert [] == project.pikaci.leases()
    assert not project.pushed()


def test_a_push_that_is_killed_leaves_nothing_to_the_next(project: Project) -> None:
    """The next push resumes the old job, and is accepted."""
    pushing = project.begin_push()
    guests = project.pikaci.leases()
    os.killpg(pushing.pid, signal.SIGKILL)
    pushing.communicate(timeout=SECS)
    there = project.pikaci.leases()
    project.pikaci.open_gate()
    project.pikaci.write(JOB)
    (project.pikaci.workspace / "good").touch()
    next_one = project.push()

    assert (1, guests) == (len(guests), there)
    assert 0 == next_one.returncode, next_one.stderr
    assert [] == project.pikaci.leases()
    assert project.pushed()
