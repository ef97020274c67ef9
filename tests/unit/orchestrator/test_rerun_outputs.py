"""`pikaci rerun` of jobs that need others: on the fake Incus, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.journal import open_journal
from orchestrator.session.gc import Bounds, collect_garbage
from orchestrator.state_root import StateRoot
from states.outcome import EXIT_CODES, Verdict, overall
from tests import forks

FILE = """
schema = 1
[jobs.deps]
command = "write /artifacts/out/lib"
output = "/artifacts/out"
sources = ["wanted"]
[jobs.unused]
command = "print never needed"
[jobs.test]
command = "%s"
workspace_deps = { job = "deps" }
%s
[jobs.after]
command = "print after"
needs = ["test"]
%s
"""
PART = 'sources = ["wanted"]'


class Place:
    """A workspace and its state root."""

    def __init__(self, base: Path) -> None:
        self.workspace = base / "workspace"
        self.workspace.mkdir()
        (self.workspace / "wanted").write_text("1")
        self.root = StateRoot(base / "root")

    def write(self, test: str = "print ok", part: str = "") -> None:
        (self.workspace / "pikaci.toml").write_text(FILE % (test, part, part))

    def pikaci(self, *words: str) -> tuple[int, dict[str, Any]]:
        """The exit code, and the jobs of the run by name."""
        done = self._call(*words, "--output", "json")
        assert done.stdout, done.stderr
        return done.returncode, {job["name"]: job for job in json.loads(done.stdout)["jobs"]}

    def refused(self, *words: str) -> tuple[int, str]:
        """The exit code, and what it said."""
        done = self._call(*words)
        return done.returncode, done.stderr.decode()

    def _call(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, "PIKACI_STATE_ROOT": str(self.root.path)}
        return forks.run(words, program=forks.ON_THE_FAKE, cwd=self.workspace, env=env)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def states(jobs: dict[str, Any]) -> dict[str, str]:
    return {
        name: job["verdict"] if job["state"] != "reused" else "reused" for name, job in jobs.items()
    }


def test_failed_and_skipped_jobs_are_run_again_with_what_they_need(place: Place) -> None:
    """What the maker left is reused; what passed and nobody needs is left out."""
    place.write("exit 3")
    code, first = place.pikaci("run")
    again_code, again = place.pikaci("rerun", "--failed")

    assert (1, 1) == (code, again_code)
    assert {"deps": "passed", "unused": "passed", "test": "failed", "after": "skipped"} == states(
        first
    )
    assert {"deps": "reused", "test": "failed", "after": "skipped"} == states(again)
    assert first["test"]["snapshot"] == again["test"]["snapshot"]


def test_one_job_brings_what_it_needs(place: Place) -> None:
    """Directly or not, whether its maker was made in that run or reused there."""
    place.write()
    place.pikaci("run")
    place.pikaci("run")

    for _ in range(2):
        code, jobs = place.pikaci("rerun", "after")
        assert 0 == code
        assert {"deps": "reused", "test": "passed", "after": "passed"} == states(jobs)


def test_the_command_s_exit_code_is_that_of_the_job_that_was_named(place: Place) -> None:
    """The jobs that it needs are no reason to refuse; if one fails, that is no code of its own."""
    own = ("--exit-code", "command")
    place.write("exit 7")
    assert 7 == place.pikaci("run", "test", *own)[0]
    assert 244 == place.pikaci("run", "after", *own)[0]
    place.write()
    assert 0 == place.pikaci("run", "after", *own)[0]
    assert 0 == place.pikaci("run", "deps", *own)[0]  # reused


def test_the_command_s_exit_code_is_of_one_job(place: Place) -> None:
    """Of two that do not need each other, none is meant."""
    place.write()

    code, errors = place.refused("run", "deps", "unused", "--exit-code", "command")

    assert 242 == code
    assert "--exit-code command needs one job, and there are 2: deps, unused" in errors


def test_a_run_that_stops_at_the_first_failure_does_so_again(place: Place) -> None:
    """Not only in its first life; one that went on goes on."""
    place.write("exit 3")
    (place.workspace / "pikaci.toml").write_text(
        """
        schema = 1
        [jobs.first]
        command = "exit 3"
        priority = 1
        [jobs.second]
        command = "print ok"
        """
    )

    verdicts = {"first": "failed", "second": "skipped"}
    assert verdicts == states(place.pikaci("run", "--fail-fast", "--jobs", "1")[1])
    assert verdicts == states(place.pikaci("rerun", "--jobs", "1")[1])
    verdicts["second"] = "passed"
    assert verdicts == states(place.pikaci("run", "--jobs", "1")[1])
    assert verdicts == states(place.pikaci("rerun", "--jobs", "1")[1])


@pytest.mark.parametrize("part", ["", PART])
def test_a_run_is_run_again_after_gc(place: Place, part: str) -> None:
    """Also when all of the jobs that are run again saw only a part of the workspace."""
    place.write(part=part)
    _, first = place.pikaci("run", "deps", "test")
    with open_journal(place.root.journal) as journal:
        collect_garbage(place.root, journal, Bounds(runs=5), dry_run=False)
    (place.workspace / "wanted").write_text("2")

    code, again = place.pikaci("rerun")

    assert 0 == code
    assert {"deps": "reused", "test": "passed"} == states(again)
    assert [job["snapshot"] for job in first.values()] == [
        job["snapshot"] for job in again.values()
    ]


def test_a_run_with_nothing_but_reused_and_skipped_jobs_has_not_passed() -> None:
    """Nothing that was asked for was done."""
    assert Verdict.SKIPPED is overall([Verdict.PASSED, Verdict.SKIPPED])
    assert 0 != EXIT_CODES[Verdict.SKIPPED]
