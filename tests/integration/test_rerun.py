"""Jobs of an earlier run, once more."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.integration.command import Command

pytestmark = pytest.mark.incus

JOBS = """
schema = 1
[defaults]
memory = "512MiB"
[jobs.good]
command = "true"
[jobs.reads]
command = "cat word; exit 3"
[jobs.writable]
command = "true"
writable_workspace = true
"""


@pytest.fixture
def ran(pikaci: Command) -> Command:
    pikaci.write(JOBS)
    (pikaci.workspace / "word").write_text("before\n")
    assert 1 == pikaci("run", "good", "reads").returncode
    (pikaci.workspace / "word").write_text("after\n")
    return pikaci


def test_jobs_that_failed_see_the_tree_that_they_saw(ran: Command) -> None:
    """However the workspace and the job file changed meanwhile; in a run of its own."""
    first = json.loads(ran("status", "--output", "json").stdout)
    ran.write("schema = 1\n[jobs.other]\ncommand = 'true'\n")
    again = json.loads(ran("rerun", first["run"], "--failed", "--output", "json").stdout)
    log = ran("logs", again["jobs"][0]["id"]).stdout

    assert first["run"] != again["run"]
    assert ["reads"] == [job["job"] for job in again["jobs"]]
    assert (3, 1) == (again["jobs"][0]["exit_code"], again["exit_code"])
    assert first["jobs"][1]["snapshot"] == again["jobs"][0]["snapshot"]
    assert "before" in log
    assert "after" not in log


def test_all_jobs_of_a_run_go_again_and_then_those_that_failed_may_be_none(ran: Command) -> None:
    """Without a name it is the newest run."""
    whole = json.loads(ran("rerun", "--output", "json").stdout)
    good = ran("rerun", whole["jobs"][0]["id"], "--failed")

    assert ["good", "reads"] == [job["job"] for job in whole["jobs"]]
    assert (0, "no job of this run failed: nothing to rerun\n") == (
        good.returncode,
        good.stdout,
    )


def test_what_cannot_be_run_again_is_said(ran: Command) -> None:
    """A run that was rejected, one whose snapshot is gone, and one that never was."""
    run = json.loads(ran("status", "--output", "json").stdout)["run"]
    assert 2 == ran("run", "writable").returncode
    rejected = ran("rerun")
    shutil.rmtree(ran.root / "snapshots")
    gone = ran("rerun", run)
    unknown = ran("rerun", "nonsense")

    assert [2, 2, 2] == [done.returncode for done in (rejected, gone, unknown)]
    assert "was rejected, so it has no snapshot" in rejected.stderr
    assert f"the snapshot of the run {run} was deleted" in gone.stderr
    assert "there is no job or run 'nonsense'" in unknown.stderr
