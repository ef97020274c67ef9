"""`pikaci history`, `flakes` and `trace diff`: how a job went, and what is different since it passed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import pikaci
from orchestrator.errors import UsageError
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.history import failing_row, job_history, percentile
from orchestrator.journal.rows import JobRow
from states import events as ev
from states.changes import MAX_NAMED, case_changes, changes
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec
from tests.unit.orchestrator.rig import Rig, open_rig

FAILURE = "<failure message='AssertionError: 41 != 42'/>"
WHY = "1 of 3 tests failed: test_b: AssertionError: 41 != 42"
PASSED, FAILED, TIMED_OUT = Verdict.PASSED, Verdict.FAILED, Verdict.TIMED_OUT


class Guests:
    """Guests whose commands print a line and write a report; `fails` are tests that fail."""

    def __init__(self) -> None:
        self.tests = ["test_a", "test_b"]
        self.fails: list[str] = []

    async def __call__(self, command: GuestCommand) -> GuestOutcome:
        cases = "".join(
            f"<testcase name='{name}'>{FAILURE if name in self.fails else ''}</testcase>"
            for name in self.tests
        )
        report = f"<testsuite>{cases}</testsuite>".encode()
        return GuestOutcome(int(bool(self.fails)), {"junit.xml": report})


async def run(rig: Rig, run: str, commit: str, **keys: Any) -> Job:
    (rig.context.root.snapshots / f"tree-{commit}").mkdir(exist_ok=True)
    snapshot = ev.SnapshotRef(hash=f"tree-{commit}", commit=commit, dirty=False)
    spec = JobSpec(command="test", junit=("junit.xml",), **keys)
    task = await rig.submit(spec, run=run, snapshot=snapshot)
    await task.run()
    return rig.journal.job(task.job.id)


def say(root: Path, *words: str, code: int = 0) -> str:
    asked = [*words, "--state-root", str(root)]
    result = CliRunner().invoke(pikaci, asked, standalone_mode=False)
    assert code == result.return_value, result.output
    return result.output


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    """A job that passed in p, failed in q and r with another commit, and in s passed with that."""
    guests = Guests()
    async with open_rig(tmp_path, guest_script=guests) as rig:
        await run(rig, "p", "c0ffee")
        guests.tests, guests.fails = ["test_a", "test_b", "test_c"], ["test_b"]
        await run(rig, "q", "decade", env={"A": "1"})
        await run(rig, "r", "decade", env={"A": "1"})
    return tmp_path


async def test_since_when_a_job_fails_and_what_is_different(root: Path) -> None:
    """The first failing commit, the last that passed, and the tests between them."""
    said = say(root, "history", "job")

    head, table = said.split("\n\n")
    lines = head.splitlines()
    assert "job: 3 results, 1 passed, 2 failed (33 % passed)" == lines[0]
    assert lines[1].startswith("  time: p50 ")
    assert lines[2].startswith("  failing since run q (") and "commit decade)" in lines[2]
    assert f"    {WHY}" == lines[3]
    assert lines[4].startswith("  last passed in run p (") and "commit c0ffee)" in lines[4]
    assert "  different since then: commit, files, env" == lines[5]
    assert ["  tests that fail now: test_b", "  tests that are new: test_c"] == lines[6:]
    *entries, last = table.splitlines()[1:]
    assert ["r.1", "q.1", "p.1"] == [line.split()[0] for line in entries]
    assert last.startswith("-> pikaci trace diff p.1 q.1")


async def test_history_as_data(root: Path) -> None:
    """All of it, in one document; a line for each result."""
    history = json.loads(say(root, "history", "job", "-n", "2", "--output", "json"))
    lines = say(root, "history", "r.1", "--output", "jsonl").splitlines()

    assert (2, 0, None, None) == (
        *(history["results"], history["passed"]),
        *(history["last_passed"], history["p50_secs"]),
    )
    assert "q.1" == history["failing_since"]["id"]
    assert [] == history["changes"]  # of so few results none passed
    changes = json.loads(say(root, "history", "job", "--output", "json"))["changes"]
    assert {"what": "commit", "one": "c0ffee", "other": "decade"} == changes[0]
    assert ["commit", "files", "env"] == [change["what"] for change in changes]
    assert ["r.1", "q.1", "p.1"] == [json.loads(line)["id"] for line in lines]
    assert json.loads(lines[0])["reason"] == WHY


async def test_a_job_without_a_result_has_no_history(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.submit(JobSpec(command="true"))

    result = CliRunner().invoke(pikaci, ["history", "job", "--state-root", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "the job job has no result yet" == result.exception.headline


async def test_flakes_are_listed_with_their_tests(root: Path) -> None:
    """And what to type to see what was different."""
    assert "no job passed and failed with the same inputs\n" == say(root, "flakes")
    guests = Guests()
    guests.tests = ["test_a", "test_b", "test_c"]
    async with open_rig(root, guest_script=guests) as rig:
        await run(rig, "s", "decade", env={"A": "1"})

    said = say(root, "flakes")
    (flake,) = json.loads(say(root, "flakes", "--output", "json"))
    history = say(root, "history", "job")

    assert "2 of 3" in said and "test_b" in said
    assert said.endswith("-> pikaci trace diff s.1 r.1\n")
    assert ("job", 1, 2, "s.1", "r.1") == (
        *(flake["name"], flake["passed"], flake["failed"]),
        *(flake["passed_job"], flake["failed_job"]),
    )
    assert [("test_b", 1, 2)] == [(t["name"], t["passed"], t["failed"]) for t in flake["tests"]]
    assert "  flaky: it passed and failed with the same inputs once\n" in history
    assert 3 == history.count(", flaky")


async def test_a_job_is_compared_with_the_last_that_passed(root: Path) -> None:
    """Commit, files, inputs, spec and tests; named as `none` where one of them has none."""
    said = say(root, "trace", "diff", "r.1", code=1)
    report = json.loads(say(root, "trace", "diff", "job", "--output", "json", code=1))

    assert said.startswith("A  job (p.1): passed") and "\nB  job (r.1): failed" in said
    for line in (
        "commit: c0ffee -> decade",
        "files: tree-c0ffee -> tree-decade",
        'env: none -> {"A":"1"}',
        "tests that fail now: test_b",
        "tests that are new: test_c",
    ):
        assert f"  {line}\n" in said
    assert "image:" not in said
    assert ["commit", "files", "env"] == [change["what"] for change in report["changes"]]
    assert (["test_b"], ["test_c"]) == (report["tests"]["broken"], report["tests"]["added"])


async def test_two_runs_with_the_same_inputs_are_said_to_be_such(root: Path) -> None:
    """Whatever else is different: on a busy machine that is their time, and so the exit code."""
    options = ["trace", "diff", "q.1", "r.1", "--state-root", str(root)]
    said = CliRunner().invoke(pikaci, options, standalone_mode=False).output

    assert "  same inputs: commit, files, image, inputs and spec\n" in said
    assert "tests that" not in said


async def test_what_never_passed_has_nothing_to_be_compared_with(root: Path) -> None:
    """And a trace file does not say what passed before it."""
    none = CliRunner().invoke(pikaci, ["trace", "diff", "p.1", "--state-root", str(root)])
    (root / "file").write_text("")
    file = CliRunner().invoke(pikaci, ["trace", "diff", str(root / "file")])

    assert "no job job passed before p.1" in str(none.exception)
    assert "is a trace file" in str(file.exception)


def row(number: int, verdict: Verdict, identity: str | None = None) -> JobRow:
    at = f"2026-01-01T00:00:{number:02}Z"
    return JobRow(
        *(f"{number}.1", str(number), "job", True, State.RESULT_COLLECTED, verdict, 1),
        *(
            at,
            at,
            f"2026-01-01T00:01:{number:02}Z",
            "/src",
            "tree",
            "c",
            False,
            "why",
            "",
            identity,
        ),
    )


@pytest.mark.parametrize(
    ("verdicts", "row_length"),
    [
        ([PASSED], 0),
        ([FAILED], 1),
        ([FAILED, TIMED_OUT, PASSED, FAILED], 2),
        ([PASSED, FAILED], 0),
    ],
)
def test_since_when_it_fails(verdicts: list[Verdict], row_length: int) -> None:
    """Only an unbroken row of failures up to now counts."""
    rows = [row(len(verdicts) - n, verdict) for n, verdict in enumerate(verdicts)]
    history = job_history(rows, None)

    assert row_length == failing_row(rows)
    assert (history.failing_since is None) == (row_length == 0)
    if history.failing_since is not None:
        assert rows[row_length - 1].id == history.failing_since.id


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([50, 95]))
def test_a_percentile_is_one_of_the_values(values: list[float], percent: int) -> None:
    """And so many percent are not above it."""
    found = percentile(sorted(values), percent)

    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values)


def test_of_many_changed_tests_the_first_are_named() -> None:
    now = {("s", f"test_{number:03}"): True for number in range(100)}
    found = case_changes(dict.fromkeys(now, False), now)

    assert found is not None and case_changes(now, now) is None
    assert (100, MAX_NAMED) == (found.broken_count, len(found.broken))


def test_a_long_value_is_cut() -> None:
    """A command may be a whole script."""
    jobs = [Job(spec=JobSpec(command=word * 100)) for word in ("a", "b")]
    (change,) = changes(*jobs)

    assert ("command", 60) == (change.what, len(change.one))
