"""`pikaci run --repeat`: the runs, the snapshot that they share, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from orchestrator.cli import pikaci, run_request
from orchestrator.cli.repeat import summary
from orchestrator.errors import UsageError
from orchestrator.job.submission import Request
from orchestrator.report import RunReport, job_document, run_report
from states.events import SnapshotRef
from states.job import Job
from states.lifecycle import State
from states.outcome import Flake, Outcome, Verdict

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


def job(run: str, name: str, outcome: Outcome, **values: Any) -> Job:
    return Job(
        id=f"{run}.{name}",
        run=run,
        name=name,
        state=State.RESULT_COLLECTED,
        outcome=outcome,
        exit_code=int(outcome is not PASSED),
        snapshot=SnapshotRef(hash="part", whole="tree", commit="c0ffee", dirty=True),
        **values,
    )


class Runs:
    """Stands for the running of requests: each run ends as the next of `outcomes` says."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[Request] = []

    def __call__(self, request: Request, *_: Any, **__: Any) -> RunReport:
        self.requests.append(request)
        number = len(self.requests)
        return run_report(f"r{number}", [job(f"r{number}", "test", self.outcomes.pop(0))])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    found = Runs([PASSED, PASSED, FAILED, PASSED, FAILED])
    monkeypatch.setattr(run_request, "run_request", found)
    monkeypatch.setenv("PIKACI_STATE_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pikaci.toml").write_text("schema = 1\n[jobs.test]\ncommand = 'true'\n")
    return found


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(pikaci, ["run", *words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.return_value, done.stdout


@pytest.mark.parametrize(
    ("words", "times", "code"),
    [
        (("--repeat", "2"), 2, 0),
        (("--repeat", "5"), 5, 1),
        (("--repeat", "5", "--until-fail"), 3, 1),
        (("--repeat", "2", "--until-fail"), 2, 0),
    ],
)
def test_jobs_are_run_so_often(runs: Runs, words: tuple[str, ...], times: int, code: int) -> None:
    """All on the snapshot of the first; the exit code is that of the first that did not pass."""
    found = run(*words, "-q")

    assert times == len(runs.requests)
    assert code == found[0]
    first, *others = (request.snapshot for request in runs.requests)
    assert first is None
    for snapshot in others:
        assert snapshot is not None
        assert ("tree", "c0ffee", True) == (snapshot.hash, snapshot.commit, snapshot.dirty)


def test_what_was_cancelled_is_not_repeated(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who presses Ctrl-C means all of it."""
    requests: list[Request] = []

    def interrupted(request: Request, *_: Any, **__: Any) -> RunReport:
        requests.append(request)
        return run_report("r", [job("r", "test", PASSED)], interrupted=True)

    monkeypatch.setattr(run_request, "run_request", interrupted)

    assert 130 == run("--repeat", "5", "-q")[0]
    assert 1 == len(requests)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--until-fail",), "--until-fail needs --repeat"),
        (("--repeat", "2", "--output", "json"), "more than one document"),
    ],
)
def test_options_that_do_not_fit_are_refused(runs: Runs, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(*words)

    assert [] == runs.requests


def test_the_end_says_what_did_not_always_pass() -> None:
    """By job, and what to type to see what was different."""
    before = Flake(passed=1, failed=1, other="r0.test")
    flake = Flake(passed=1, failed=1, other="r1.test")
    reports = [
        run_report("r1", [job("r1", "test", PASSED, flake=before), job("r1", "lint", PASSED)]),
        run_report("r2", [job("r2", "test", FAILED, flake=flake), job("r2", "lint", PASSED)]),
    ]

    assert [
        "2 runs: 1 passed, 1 failed",
        "  test: 1 of 2 passed, not r2.test",
        "-> pikaci trace diff r1.test r2.test",
    ] == summary(reports)
    assert ["1 run: 1 passed", "-> pikaci trace diff r1.test r0.test"] == summary(reports[:1])
    assert ["1 run: 1 passed"] == summary([run_report("r", [job("r", "test", PASSED)])])


def test_only_some_of_many_failures_are_named() -> None:
    failed = [run_report(f"r{n}", [job(f"r{n}", "test", FAILED)]) for n in range(8)]

    assert summary(failed)[1].endswith(", r4.test and 3 more")
    assert Verdict.FAILED is failed[0].outcome
    assert msgspec.json.encode(job_document(job("r", "test", PASSED)))
