"""The command as a person or a program calls it, on the real Incus."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.journal import open_journal
from states.trace import replay
from tests.integration.cli_jobs import JOBS, valid
from tests.integration.command import AT_THE_GATE, SECS, Command


@pytest.mark.incus
@pytest.mark.parametrize(
    ("args", "tree"),
    [
        (["--file", "../other/jobs.toml"], "other"),
        (["--file", "../other/jobs.toml", "--workspace", "."], "ws"),
    ],
)
def test_the_workspace_is_the_one_that_is_printed(
    pikaci: Command, args: list[str], tree: str
) -> None:
    """The directory of the job file that `--file` names, unless `--workspace` names another."""
    other = pikaci.workspace.parent / "other"
    other.mkdir()
    (other / "jobs.toml").write_text('schema = 1\n[jobs.list]\ncommand = "ls"\n')
    for path in (pikaci.workspace, other):
        (path / f"in-{path.name}").touch()

    done = pikaci("run", *args)

    assert 0 == done.returncode
    assert f"1 job of {pikaci.workspace.parent / tree}\n" in done.stdout + done.stderr
    assert ["in-other" in done.stdout, "in-ws" in done.stdout] == [tree == "other", tree == "ws"]


@pytest.mark.incus
@pytest.mark.parametrize(
    ("jobs", "code", "outcome"),
    [
        (["good"], 0, "passed"),
        (["good", "bad"], 1, "failed"),
        (["slow"], 3, "timed_out"),
        (["lost"], 4, "infrastructure"),
        (["bad", "slow", "lost"], 1, "failed"),
        (["slow", "lost"], 3, "timed_out"),
        (["good", "writable"], 2, "rejected"),
    ],
)
def test_exit_code_and_document_of_a_run(
    pikaci: Command, jobs: list[str], code: int, outcome: str
) -> None:
    """The first of 130, 1, 3, 4 counts; stdout is the document alone; paths are absolute."""
    pikaci.write(JOBS)

    done = pikaci("run", *jobs, "--output", "json")

    report = valid("run.json", json.loads(done.stdout))
    assert (code, outcome, code) == (done.returncode, report["outcome"], report["exit_code"])
    assert "" == done.stderr
    for job in report["jobs"]:
        if job["log"]:
            assert Path(job["log"]).is_absolute()
            assert Path(job["log"]).exists()
    if outcome == "rejected":
        assert ["writable"] == [job["job"] for job in report["jobs"]]
        assert (
            "remote Linux VM backend `incus` does not support writable workspace jobs"
            == (report["jobs"][0]["failure"]["message"])
        )


@pytest.mark.incus
@pytest.mark.parametrize("output", ["human", "json"])
def test_a_snapshot_s_warnings_are_told_on_stderr(pikaci: Command, output: str) -> None:
    """A submodule that is not initialised is named, and the run goes on without it."""
    pikaci.write(JOBS)
    (pikaci.workspace / "sub").mkdir()
    add_gitlink = ["git", "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub"]
    for command in (["git", "init", "-q"], add_gitlink):
        subprocess.run(command, cwd=pikaci.workspace, check=True)

    done = pikaci("run", "good", "--output", output)

    assert 0 == done.returncode
    assert "warning: submodules that are not initialised are empty: sub\n" == done.stderr


@pytest.mark.incus
def test_the_record_of_a_job_has_all_that_it_was(pikaci: Command) -> None:
    """Snapshot, image, instance, phases with durations, attempts."""
    pikaci.write(JOBS)

    (job,) = json.loads(pikaci("run", "good", "--output", "json").stdout)["jobs"]

    assert ("good", "result_collected", "passed", 0, 1) == (
        job["job"],
        job["state"],
        job["outcome"],
        job["exit_code"],
        job["attempts"],
    )
    assert (64, None, "pikaci/dev", 64) == (
        len(job["snapshot"]["hash"]),
        job["snapshot"]["commit"],
        job["image"]["alias"],
        len(job["image"]["fingerprint"]),
    )
    assert all(phase["duration_ms"] > 0 for phase in job["phases"][:-1])


@pytest.mark.incus
def test_json_lines_are_the_journal_s_entries(pikaci: Command) -> None:
    """Each line has the form that docs/ promises, and they replay to the job."""
    done = pikaci("run", "--output", "jsonl", "--", "true")

    lines = [valid("event.json", json.loads(line)) for line in done.stdout.splitlines()]
    job = lines[0]["job"]
    assert "submitted" == lines[0]["type"]
    assert "lease_ended" == lines[-1]["type"]
    traced = pikaci("trace", "export", job)
    assert lines == [json.loads(line) for line in traced.stdout.splitlines()[1:]]
    assert "result_collected" == replay(traced.stdout.encode()).state


@pytest.mark.incus
def test_a_person_sees_output_and_reasons_as_lines(pikaci: Command) -> None:
    """Where there is no terminal: each line behind its job's name, and no escape sequence."""
    pikaci.write(JOBS)

    done = pikaci("run", "good", "bad")

    *_, counts, bad, logs, rerun = done.stdout.splitlines()
    for words in ("good | fine", "bad  | broken", "\u2717 bad ", "test command exited with 7"):
        assert words in done.stdout
    assert counts.startswith("1 passed, 1 failed in ")
    assert "  bad  test command exited with 7" == bad
    assert ["-> pikaci logs bad", "-> pikaci rerun --failed"] == [logs, rerun]
    assert "\x1b" not in done.stdout


@pytest.mark.incus
def test_quiet_shows_output_of_what_failed_alone(pikaci: Command) -> None:
    """The last lines below the reason."""
    pikaci.write(JOBS)

    done = pikaci("run", "-q", "good", "bad")

    assert "    | broken" in done.stdout
    assert "fine" not in done.stdout


@pytest.mark.incus
def test_verbose_tells_what_is_being_done(pikaci: Command) -> None:
    """Each state in a person's words."""
    pikaci.write(JOBS)

    done = pikaci("run", "-v", "good")

    for word in ("queued", "creating", "starting", "running"):
        assert f"good: {word}\n" in done.stdout


@pytest.mark.incus
def test_a_log_is_followed_while_it_grows(pikaci: Command) -> None:
    """A line is there soon after the guest printed it, and the follower ends with the job."""
    running = pikaci.start("run", "--", f"echo one; {AT_THE_GATE}; echo two")
    follower = None
    try:
        while "one" not in (running.stdout.readline() if running.stdout else ""):
            pass
        follower = pikaci.start("logs", "-f")
        assert follower.stdout is not None
        lines = [follower.stdout.readline() for _ in range(2)]
        alive = running.poll() is None
        pikaci.open_gate()
        rest = follower.stdout.read()
    finally:
        running.communicate(timeout=SECS)
        if follower:
            follower.communicate(timeout=SECS)

    assert lines[0].startswith("[pikaci] incus guest booted at ")
    assert ("one\n", True, "two\n") == (lines[1], alive, rest)
    assert follower is not None
    assert 0 == follower.returncode


@pytest.mark.incus
def test_gc_frees_all_but_the_newest(pikaci: Command) -> None:
    """Old runs' files and entries go, and snapshots that nobody names."""
    for number in range(3):
        (pikaci.workspace / "file").write_text(str(number))
        pikaci("run", "--", "true")
    before = pikaci("gc", "--keep", "1", "--dry-run").stdout

    done = pikaci("gc", "--keep", "1")

    assert before.startswith("would delete 2 runs, 2 jobs, 2 snapshots and 0 outputs: ")
    assert done.stdout.startswith("deleted 2 runs, 2 jobs, 2 snapshots and 0 outputs: ")
    assert 1 == len(os.listdir(pikaci.root / "jobs"))
    assert 1 == len(os.listdir(pikaci.root / "snapshots"))
    assert 1 == len(json.loads(pikaci("list", "--output", "json").stdout))


@pytest.mark.incus
def test_gc_takes_a_run_whose_guest_incus_deletes(pikaci: Command) -> None:
    """Right after it, when the guest may still be there; a dry run names the same."""
    pikaci("run", "--", "true", PIKACI_WAIT_DELETED="")

    planned = pikaci("gc", "--keep", "0", "--dry-run")
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        assert 1 == len(journal.open_leases())
    done = pikaci("gc", "--keep", "0")

    assert done.stdout.startswith("deleted 1 run, 1 job, 1 snapshot and 0 outputs: ")
    assert f"would {done.stdout}".replace("deleted", "delete") == planned.stdout
    assert [] == pikaci.leases()


@pytest.mark.incus
def test_doctor_finds_nothing_missing_here(pikaci: Command) -> None:
    """On a machine that is set up every row is there, and none is missing."""
    done = pikaci("doctor")

    assert 0 == done.returncode
    assert "MISSING" not in done.stdout
    for subject in ("daemon", "project", "storage pool", "guest image"):
        assert subject in done.stdout
