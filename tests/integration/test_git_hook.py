"""The git hook of docs/examples, with a real git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.command import PIKACI, SECS, Command

HOOK = Path(__file__).parents[2] / "docs" / "examples" / "git-pre-push"
JOB = 'schema = 1\n[jobs.test]\ncommand = "test -e good"\n'


@pytest.mark.incus
def test_only_what_passes_is_pushed(pikaci: Command, tmp_path: Path) -> None:
    """What fails is not pushed, nor what could not be run; each is told as what it is."""
    path = f"{Path(PIKACI).parent}{os.pathsep}{pikaci.env['PATH']}"
    env = {**pikaci.env, "PATH": path, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        return subprocess.run(
            ["git", *who, *words], cwd=pikaci.workspace, env={**env, **more}, text=True,
            capture_output=True, timeout=SECS,
        )  # fmt: skip

    pikaci.write(JOB)
    there = tmp_path / "there.git"
    for words in (
        ("init", "--bare", str(there)),
        ("init",),
        ("remote", "add", "origin", str(there)),
        ("add", "--all"),
        ("commit", "--message", "one"),
    ):
        assert 0 == git(*words).returncode
    (pikaci.workspace / ".git" / "hooks" / "pre-push").symlink_to(HOOK)

    failed = git("push", "origin", "HEAD:main")
    broken = git("push", "origin", "HEAD:main", INCUS_SOCKET="/nonexistent")
    assert "" == git("ls-remote", "origin").stdout
    (pikaci.workspace / "good").touch()
    passed = git("push", "origin", "HEAD:main")

    assert failed.returncode and "not pushed: a job did not pass" in failed.stderr
    assert broken.returncode and "could not be run (exit code 4)" in broken.stderr
    assert 0 == passed.returncode, passed.stderr
    assert "refs/heads/main" in git("ls-remote", "origin").stdout
