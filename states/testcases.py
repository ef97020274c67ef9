"""What a job's test reports say: its test cases, and a summary of them. Pure.

A report never changes a verdict. It only says more about it.
"""

# Annotations are not text here: msgspec would compile each of them, at every start.
import enum
import heapq
from collections import Counter
from collections.abc import Sequence

import msgspec

# How many failures, and how many of the slowest cases, a summary names.
SUMMARY_CASES = 10
SUMMARY_MESSAGE = 500  # characters
# A headline names this many failures, and has no longer names.
HEADLINE_CASES = 3
HEADLINE_NAME = 80
HEADLINE_MESSAGE = 200


class CaseOutcome(enum.StrEnum):
    """How a test case ended; `error`: something around the test failed, such as its setup."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


NOT_PASSED = (CaseOutcome.FAILED, CaseOutcome.ERROR)


class Case(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A test case of a report, as the test runner wrote it; all of it is text of the guest.

    `suite` is its class or module, `file` where it is; either may be "". `secs` is how long it
    took, `message` why it did not pass; of a job's first failures only.
    """

    name: str
    outcome: CaseOutcome
    suite: str = ""
    file: str = ""
    secs: float = 0.0
    message: str = ""


class CaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of a job's test cases.

    `total` counts all: those that passed, failed, had an error, or were skipped. `secs` is the sum
    of their times. `failures` are the first that failed or had an error, `slowest` the slowest,
    without messages.
    """

    total: int
    passed: int
    failed: int
    errors: int
    skipped: int
    secs: float
    failures: tuple[Case, ...] = ()
    slowest: tuple[Case, ...] = ()

    @property
    def not_passed(self) -> int:
        """How many failed or had an error."""
        return self.failed + self.errors


def case_report(cases: Sequence[Case]) -> CaseReport:
    """The summary of these cases."""
    count = Counter(case.outcome for case in cases)
    failures = [case for case in cases if case.outcome in NOT_PASSED]
    slowest = heapq.nlargest(SUMMARY_CASES, cases, key=lambda case: case.secs)
    return CaseReport(
        total=len(cases),
        passed=count[CaseOutcome.PASSED],
        failed=count[CaseOutcome.FAILED],
        errors=count[CaseOutcome.ERROR],
        skipped=count[CaseOutcome.SKIPPED],
        secs=round(sum(case.secs for case in cases), 3),
        failures=tuple(_clipped(case, SUMMARY_MESSAGE) for case in failures[:SUMMARY_CASES]),
        slowest=tuple(_clipped(case, 0) for case in slowest if case.secs > 0),
    )


def headline(report: CaseReport | None) -> str:
    """`3 of 617 tests failed: test_a: assert 41 == 42, and 2 more tests`; "" if none failed.

    If the first failure has no message, the names of the first ones.
    """
    if report is None or not report.not_passed:
        return ""
    if _says_why(report):
        named, listed, joint = 1, case_line(report.failures[0]), ", and"
    else:
        names = [_cut(case.name, HEADLINE_NAME) for case in report.failures[:HEADLINE_CASES]]
        named, listed, joint = len(names), ", ".join(names), " and"
    more = report.not_passed - named
    others = f"{joint} {more} more {'tests' if more > 1 else 'test'}" if more else ""
    return f"{report.not_passed} of {tests(report.total)} failed: {listed}{others}"


def below_headline(report: CaseReport | None) -> list[str]:
    """What a headline does not say of the first failures: a line each."""
    if report is None:
        return []
    shown = report.failures[:HEADLINE_CASES]
    if not any(case.message for case in shown):
        return []
    return [case_line(case) for case in (shown[1:] if _says_why(report) else shown)]


def case_line(case: Case, spent: str = "") -> str:
    """`test_a: assert 41 == 42`, or `test_a (2.0 s): ...` with the time `spent` in words."""
    name = _cut(case.name, HEADLINE_NAME) + (f" ({spent})" if spent else "")
    return ": ".join(filter(None, (name, _cut(case.message, HEADLINE_MESSAGE))))


def _says_why(report: CaseReport) -> bool:
    """Whether the first failure has a message."""
    return any(case.message for case in report.failures[:1])


def tests(number: int) -> str:
    """`1 test`, `617 tests`."""
    return f"{number} test{'s' if number != 1 else ''}"


def _clipped(case: Case, most: int) -> Case:
    if len(case.message) <= most:
        return case
    return msgspec.structs.replace(case, message=case.message[:most])


def _cut(text: str, most: int) -> str:
    """A text on one line, without its end where it is longer."""
    # Ten times as much may be white space.
    line = " ".join(text[: 10 * most].split())
    return line if len(line) <= most else line[: most - 3] + "..."
