"""The summary of a job's tests, and the words of a failure that come from it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from states import events as ev
from states.job import fold, why
from states.outcome import Outcome
from states.testcases import (
    Case,
    CaseOutcome,
    below_headline,
    case_report,
    headline,
)
from tests.samples import sample_event

PASSED, FAILED, ERROR, SKIPPED = CaseOutcome


def cases(*outcomes: CaseOutcome, **values: Any) -> list[Case]:
    return [
        Case(name=f"test_{number}", outcome=outcome, secs=float(number), **values)
        for number, outcome in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([], ""),
        ([PASSED, SKIPPED], ""),
        ([FAILED], "1 of 1 test failed: test_0"),
        ([PASSED, FAILED, ERROR], "2 of 3 tests failed: test_1, test_2"),
        ([FAILED] * 3, "3 of 3 tests failed: test_0, test_1, test_2"),
        ([FAILED] * 5, "5 of 5 tests failed: test_0, test_1, test_2 and 2 more tests"),
        ([FAILED] * 4, "4 of 4 tests failed: test_0, test_1, test_2 and 1 more test"),
    ],
)
def test_a_headline_counts_and_names(outcomes: list[CaseOutcome], said: str) -> None:
    """Errors count as failures; only the first are named."""
    assert said == headline(case_report(cases(*outcomes)))


@pytest.mark.parametrize(
    ("messages", "said", "below"),
    [
        (["no"], "1 of 1 test failed: test_0: no", []),
        (["no", "nor"], "2 of 2 tests failed: test_0: no, and 1 more test", ["test_1: nor"]),
        (["no", ""], "2 of 2 tests failed: test_0: no, and 1 more test", ["test_1"]),
        (["", ""], "2 of 2 tests failed: test_0, test_1", []),
        (["", "nor"], "2 of 2 tests failed: test_0, test_1", ["test_0", "test_1: nor"]),
        (
            ["no"] * 5,
            "5 of 5 tests failed: test_0: no, and 4 more tests",
            ["test_1: no", "test_2: no"],
        ),
    ],
)
def test_a_headline_says_why_the_first_test_failed(
    messages: list[str], said: str, below: list[str]
) -> None:
    """And how many others there are, which have lines of their own; or the names, without a why."""
    failed = [
        Case(name=f"test_{number}", outcome=FAILED, message=message)
        for number, message in enumerate(messages)
    ]

    assert (said, below) == (headline(case_report(failed)), below_headline(case_report(failed)))


def test_no_report_no_headline() -> None:
    assert "" == headline(None)
    assert [] == below_headline(None)


def test_a_summary_is_small_whatever_the_cases_are() -> None:
    """Ten failures with short messages, ten slow cases without; the numbers are of all."""
    report = case_report(cases(*[FAILED] * 1000, message="x" * 5000))

    assert (1000, 0, 1000, 0, 0) == msgspec.structs.astuple(report)[:5]
    assert 10 * [500] == [len(case.message) for case in report.failures]
    assert [f"test_{n}" for n in range(999, 989, -1)] == [case.name for case in report.slowest]
    assert {""} == {case.message for case in report.slowest}
    assert len(below_headline(report)) == 2


def test_what_took_no_time_is_not_slow() -> None:
    assert () == case_report([Case(name="a", outcome=PASSED)]).slowest


def test_long_names_and_messages_are_cut_to_one_line() -> None:
    report = case_report([Case(name="n" * 500, outcome=FAILED, message="a\n\n\tb " + "c" * 999)])

    name = "n" * 77 + "..."
    assert f"1 of 1 test failed: {name}: a b {'c' * 193}..." == headline(report)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.FAILED, ["1 of 2 tests failed: test_1: assert 1 == 2"]),
        (Outcome.TIMED_OUT, ["it took too long"]),
        (Outcome.PASSED, []),
    ],
)
def test_tests_that_failed_are_why_a_command_failed(outcome: Outcome, said: list[str]) -> None:
    """Not why it took too long; and if it passed, nothing failed."""
    report = case_report(cases(PASSED, FAILED, message="assert 1 == 2"))
    kinds = [ev.Submitted, ev.ArtifactsReset, ev.DevicesConfigured, ev.InstanceReady, ev.Running]
    event = sample_event(ev.ResultCollected, 6, outcome=outcome, exit_code=1, tests=report)
    event = msgspec.structs.replace(event, message="it took too long")
    job = fold([*(sample_event(kind, seq) for seq, kind in enumerate(kinds, 1)), event])

    assert report == job.tests
    assert said == (job.failure.message.splitlines() if job.failure else [])
    if said:
        assert said[0] == why(event)
    assert "it took too long" == job.message
