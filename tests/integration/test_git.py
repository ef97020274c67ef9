"""`git = true` in a real guest: git works on the snapshot, for both users, and on a scratch copy."""

from __future__ import annotations

import json

import pytest

from orchestrator.host.setup import DEV_IMAGE
from tests.integration.command import Command
from tests.unit.orchestrator.workspaces import commit_all, git

pytestmark = pytest.mark.incus

ASK = """
git describe --tags --long --dirty
git log -1 --format=%H%d
git status --porcelain
git rev-parse --show-toplevel --is-shallow-repository
git diff --stat
git ls-files --stage
"""
WRITE = """
echo new >new
git add new
git -c user.name=n -c user.email=e@example.com commit -qam 'in the guest'
git status --porcelain
git describe --tags
"""


def job(name: str, *, root: bool, scratch: bool) -> str:
    command = "set -x; cd /workspace/snapshot" + ASK + (WRITE if scratch else "")
    return (
        f"[jobs.{name}]\nimage = '{DEV_IMAGE}'\ncommand = '''{command}'''\n"
        f"run_as_root = {str(root).lower()}\nscratch = {str(scratch).lower()}\n"
    )


def test_git_works_in_a_guest(pikaci: Command) -> None:
    """It prints what it prints in the workspace; with `scratch`, commits can be made."""
    users = {"user": False, "root": True}
    pikaci.write(
        "schema = 1\n[snapshot]\ngit = true\n"
        + "".join(
            job(f"{user}-{kind}", root=root, scratch=kind == "scratch")
            for user, root in users.items()
            for kind in ("plain", "scratch")
        )
    )
    for name in ("a", "b", "d/c"):
        (pikaci.workspace / name).parent.mkdir(exist_ok=True)
        (pikaci.workspace / name).write_text(name)
    commit_all(pikaci.workspace)
    git(pikaci.workspace, "tag", "-a", "-m", "one", "v1")
    (pikaci.workspace / "a").write_text("second")
    commit_all(pikaci.workspace)
    (pikaci.workspace / "b").write_text("changed")

    done = pikaci("run", "--output", "json")
    logs = {
        one["name"]: pikaci("logs", one["id"]).stdout for one in json.loads(done.stdout)["jobs"]
    }
    assert 0 == done.returncode, logs

    described = git(pikaci.workspace, "describe", "--tags", "--long", "--dirty")
    assert described.startswith("v1-1-g") and described.endswith("-dirty")
    head = git(pikaci.workspace, "rev-parse", "HEAD")
    for name, log in logs.items():
        printed = [line for line in log.splitlines() if not line.startswith(("+", "[pikaci]"))]
        assert [described, f"{head} (HEAD)"] == printed[:2], name
        assert [" M b", "/workspace/snapshot", "false"] == printed[2:5]
        for line in git(pikaci.workspace, "ls-files", "--stage").splitlines():
            assert line in printed
        if name.endswith("scratch"):
            assert printed[-1].startswith("v1-2-g")


def test_outside_a_repository(pikaci: Command) -> None:
    """One line that says what to do, before anything is created."""
    pikaci.write("schema = 1\n[snapshot]\ngit = true\n[jobs.a]\ncommand = 'true'\n")
    done = pikaci("run")

    assert 2 == done.returncode
    assert "`git = true` in [snapshot] needs a git repository" in done.stderr.splitlines()[-2]
    assert "remove `git` from [snapshot]" in done.stderr.splitlines()[-1]
    assert [] == list(pikaci.root.glob("snapshots/*"))
