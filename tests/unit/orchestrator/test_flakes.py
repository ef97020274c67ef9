"""Flakes: jobs that ended in two ways with the same inputs, and what people are told of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.cli.board import ASCII
from orchestrator.cli.ended_text import ended_text
from orchestrator.cli.run_table import print_flakes
from orchestrator.cli.style import Style
from orchestrator.cli.summary import end_text
from orchestrator.cli.watched import WatchedRun
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.report import job_document
from orchestrator.testing import open_fake
from orchestrator.words import describe_flake
from states import events as ev
from states.identity import identity
from states.job import Job
from states.lifecycle import State
from states.outcome import Flake, Outcome
from states.spec import JobSpec, SecretSource
from states.testcases import CaseOutcome
from tests.unit.orchestrator.rig import Rig, open_rig

REPORT = "<testsuite><testcase classname='c' name='test_a'/><testcase name='test_b'>{}</testcase></testsuite>"


class Coin:
    """A guest whose command fails when it is told to."""

    def __init__(self) -> None:
        self.fails = False

    async def __call__(self, command: GuestCommand) -> GuestOutcome:
        said = REPORT.format("<failure/>" if self.fails else "")
        return GuestOutcome(int(self.fails), {"junit.xml": said.encode()})


async def run(rig: Rig, coin: Coin, run: str, *, fails: bool, **keys: Any) -> Job:
    coin.fails = fails
    return await rig.live(JobSpec(command="flip", junit=("junit.xml",), **keys), run=run)


async def test_two_verdicts_with_the_same_inputs_are_a_flake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said on both jobs, whichever came first, in the terminal and in the document."""
    coin = Coin()
    async with open_rig(tmp_path, guest_script=coin) as rig:
        alone = await run(rig, coin, "r", fails=False)
        failed = await run(rig, coin, "s", fails=True)
        passed = rig.journal.job("r.1")
        flaky = [rig.journal.is_flaky(job) for job in ("r.1", "s.1", "none")]
        known = WatchedRun()
        for _, entry in rig.journal.entries("s.1"):
            known.entry(entry)
        line = await ended_text(
            known, "s.1", Style(False, ASCII), names=3, width=None, log=False, flaky=flaky[1]
        )

    assert [True, True, False] == flaky
    assert "flaky, 1 of 2 tests failed" in line.splitlines()[0]
    assert alone.flake is None
    assert Flake(passed=1, failed=1, other="r.1") == failed.flake
    assert Flake(passed=1, failed=1, other="s.1") == passed.flake
    said = "flaky: failed here, passed in run r on the same inputs (1 of 2 passed)"
    assert said == describe_flake(failed)
    assert describe_flake(passed).startswith("flaky: passed here, failed in run s ")
    assert f"job: {said}\n" in end_text([failed], colours=False)
    print_flakes([failed, alone])
    assert f"job: {said}\n" == capsys.readouterr().out
    document = json.loads(msgspec.json.encode(job_document(failed)))
    assert {"passed": 1, "failed": 1, "other": "r.1"} == document["flake"]


async def test_who_waits_for_a_job_hears_of_its_flake() -> None:
    """And of what was noted meanwhile: a wait returns what a look at the job says afterwards."""
    coin = Coin()
    async with open_fake(guest_script=coin) as (orchestrator, _):
        spec = JobSpec(command="flip", junit=("junit.xml",))
        snapshot = await orchestrator.snapshot()
        passed = await (await orchestrator.submit(spec, snapshot=snapshot)).wait()
        coin.fails = True
        handle = await orchestrator.submit(spec, snapshot=snapshot)
        orchestrator.journal.note(
            ev.Warned(job=handle.id, at=datetime.now(UTC), monotonic=0, message="noted")
        )
        failed = await handle.wait()

        assert Flake(passed=1, failed=1, other=passed.id) == failed.flake
        assert ("noted",) == failed.warnings
        assert failed == await handle.fetch()


async def test_what_could_be_different_is_no_flake(tmp_path: Path) -> None:
    """Another snapshot, memory or variable may be why it failed; a priority is not."""
    coin = Coin()
    async with open_rig(tmp_path, guest_script=coin) as rig:
        await run(rig, coin, "r", fails=False)
        for number, keys in enumerate(
            [{"memory": "1GiB"}, {"env": {"A": "b"}}, {"timeout_secs": 5}, {"command": "flip "}]
        ):
            spec = JobSpec(**{"command": "flip", **keys})  # type: ignore[arg-type]
            coin.fails = True
            assert (await rig.live(spec, run=f"s{number}")).flake is None
        task = await rig.submit(
            JobSpec(command="flip"), run="t", snapshot=ev.SnapshotRef(hash="def")
        )
        (rig.context.root.snapshots / "def").mkdir()
        await task.run()
        other = rig.journal.job("t.1")
        same = await run(rig, coin, "u", fails=True, priority=7, retries=0, description="x")

    assert other.flake is None
    assert same.flake is not None


def test_what_no_key_contains_is_said() -> None:
    """What it reached outside, for example, may have been different."""
    job = Job(
        state=State.RESULT_COLLECTED,
        outcome=Outcome.PASSED,
        spec=JobSpec(
            command="x",
            egress=("a.example",),
            nix_store="/nix",
            secrets={"A": SecretSource(env="A")},
        ),
        flake=Flake(passed=1, failed=1, other="r.1"),
    )

    assert describe_flake(job).endswith(
        "(1 of 2 passed); what may differ: egress, nix_store, secrets"
    )


async def test_faults_and_skipped_tests_are_no_flakes(tmp_path: Path) -> None:
    """Only results of the command count, and tests that ran; each flaky test is known by name."""
    coin = Coin()
    async with open_rig(tmp_path, guest_script=coin) as rig:
        first = await run(rig, coin, "r", fails=False)
        (row,) = rig.journal.jobs()
        await run(rig, coin, "s", fails=True)
        await run(rig, coin, "t", fails=True)
        (flaky,) = rig.journal.flaky_jobs(limit=10)
        tests = rig.journal.flaky_tests(flaky.identity, limit=10)
        none = rig.journal.flaky_jobs(limit=0)
        no_fault = rig.journal.flake(row.identity, "infrastructure")
        outcomes = rig.journal.case_outcomes("s.1")

    assert ("job", "/src", 1, 2, "r.1", "t.1") == (
        *(flaky.name, flaky.workspace, flaky.passed_count, flaky.failed_count),
        *(flaky.passed, flaky.failed),
    )
    assert identity(first) == flaky.identity == row.identity
    assert [("", "test_b", 1, 2)] == [(t.suite, t.name, t.passed, t.failed) for t in tests]
    assert [] == none
    assert no_fault is None
    assert {("c", "test_a"): False, ("", "test_b"): True} == outcomes
    assert CaseOutcome.SKIPPED not in outcomes


def test_an_input_that_was_made_anew_is_another() -> None:
    """Although its key is the same: it may have been made from something that no key contains."""
    image = ev.ImageRef(alias="a", fingerprint="f")
    jobs = [
        Job(
            spec=JobSpec(command="x"),
            snapshot=ev.SnapshotRef(hash="h"),
            image=image,
            inputs={"deps": ev.OutputRef(key="k", job="r.1", at=datetime.fromtimestamp(at, UTC))},
        )
        for at in (1, 1, 2)
    ]

    assert identity(jobs[0]) == identity(jobs[1]) != identity(jobs[2])
    assert identity(Job(spec=JobSpec(command="x"))) is None
