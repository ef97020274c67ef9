"""The tests of a job, from its report to what people read, on the fake Incus."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import trio

from orchestrator.attempt import evidence
from orchestrator.attempt.evidence import Evidence
from orchestrator.attempt.junit import Reports
from orchestrator.attempt.plan import make_plan
from orchestrator.cli.run_table import print_jobs, print_tests
from orchestrator.cli.summary import end_text, failure_text, note, reason
from orchestrator.cli.trace_show import show_job
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.report import job_document
from orchestrator.tracing.story import job_story
from orchestrator.tracing.timeline import timeline
from orchestrator.words import case_lines, failed_case_lines
from states import events as ev
from states.job import fold
from states.outcome import Verdict
from states.spec import JobSpec, SecretSource
from states.testcases import Case, CaseOutcome, case_report
from tests.samples import sample_remote_context
from tests.unit.orchestrator.rig import open_rig

REPORT = b"""<testsuite name="s">
<testcase classname="c" name="test_a" time="2"/>
<testcase classname="c" name="test_b" time="0.5"><failure message="assert 1 == 2"/></testcase>
<testcase classname="c" name="test_c" time="1"><error message="no \x20
 database"/></testcase>
<testcase classname="c" name="test_d"><skipped/></testcase>
</testsuite>"""
GOOD = b"<testsuite><testcase name='a'/><testcase name='b'/></testsuite>"
# The exit code of a job and its report, by its command.
JOBS = {
    "fail": (1, REPORT),
    "anyway": (0, REPORT),
    "pass": (0, GOOD),
    "bad": (0, b"<testsuite>"),
    "other": (7, GOOD),
}


async def script(command: GuestCommand) -> GuestOutcome:
    code, report = JOBS[command.text]
    return GuestOutcome(exit_code=code, artifacts={"out/junit.xml": report})


def spec(command: str, **keys: object) -> JobSpec:
    return JobSpec(command=command, **{"junit": ("**/junit.xml",), **keys})  # type: ignore[arg-type]


async def test_failed_tests_are_the_reason(tmp_path: Path) -> None:
    """In the row of lists, in the document and on the terminal; the exit code stands beside it."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(spec("fail"))
        (row,) = rig.journal.jobs()

    why = "2 of 4 tests failed: test_b: assert 1 == 2, and 1 more test"
    line = f"{why} (exit code 1)"
    assert (Verdict.FAILED, "test command exited with 1") == (job.verdict, job.message)
    assert [line, "  test_c: no database"] == reason(job)
    assert why == row.message
    assert f"  job  {line}\n" in end_text([job], colours=False)
    document = job_document(job)
    assert document.failure is not None
    assert (why, f"{why}\ntest_c: no database") == (document.reason, document.failure.message)
    assert document.tests is not None
    assert (4, 1, 1, 1, 1, 3.5) == (
        document.tests.total,
        document.tests.passed,
        document.tests.failed,
        document.tests.errors,
        document.tests.skipped,
        document.tests.secs,
    )
    assert ["test_a", "test_c", "test_b"] == [case.name for case in document.tests.slowest]


async def test_a_job_that_passed_counts_its_tests(tmp_path: Path) -> None:
    """In one line, with its artifacts; the report was collected with the job's key alone."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(spec("pass"))

    assert "2 tests, 1 artifact" == note(job)
    assert () == job.warnings


async def test_a_report_among_the_artifacts_is_found(tmp_path: Path) -> None:
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(spec("pass", junit=(), artifacts=("out/**",)))

    assert job.tests is not None
    assert 2 == job.tests.total


@pytest.mark.parametrize(
    ("command", "verdict", "said"),
    [
        ("anyway", Verdict.PASSED, "2 of 4 tests failed, 1 artifact"),
        ("other", Verdict.FAILED, "2 tests, 1 artifact"),
        ("bad", Verdict.PASSED, "1 artifact"),
    ],
)
async def test_a_report_changes_no_verdict(
    tmp_path: Path, command: str, verdict: Verdict, said: str
) -> None:
    """A command that passed has passed; one that failed for another reason says so."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(spec(command))

    assert verdict is job.verdict
    assert said == note(job)
    if command == "other":
        assert ["test command exited with 7"] == reason(job)[:1]
    if command == "bad":
        (warning,) = job.warnings
        assert warning.startswith("the test report out/junit.xml was not read: no element found")


async def test_the_tests_of_a_job_with_an_output_are_known_before_the_output(
    tmp_path: Path,
) -> None:
    """They are in the event before, and in that of the end; their rows are there once."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        await rig.live(spec("pass", output="/artifacts/out"))
        events = [entry for entry in rig.entries() if isinstance(entry, ev.Event)]
        cases = rig.journal.cases("r.1")

    tests = {type(e): e.tests for e in events if isinstance(e, (ev.Publishing, ev.ResultCollected))}
    assert [2, 2] == [report.total for report in tests.values() if report]
    assert 2 == len(cases)
    assert fold(events).tests == tests[ev.ResultCollected]


async def test_the_journal_has_each_test(tmp_path: Path) -> None:
    """In the order of the report; by outcome, in pages; until gc forgets the job."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        await rig.live(spec("fail"))
        every = rig.journal.cases("r.1")
        failed = rig.journal.cases("r.1", outcomes=[CaseOutcome.FAILED, CaseOutcome.ERROR])
        page = rig.journal.cases("r.1", after=1, limit=2)
        rig.journal.forget(["r.1"])
        left = rig.journal.cases("r.1")

    assert [(1, "test_a"), (2, "test_b"), (3, "test_c"), (4, "test_d")] == [
        (number, case.name) for number, case in every
    ]
    assert [2, 3] == [number for number, _ in failed] == [number for number, _ in page]
    assert ("c", 0.5, "assert 1 == 2") == (
        failed[0][1].suite,
        failed[0][1].secs,
        failed[0][1].message,
    )
    assert [] == left


LONG = b"""<testsuite>
<testcase name="test_the_total_of_a_cart"><failure message="AssertionError: 41 != 42"/></testcase>
<testcase name="test_the_total_of_a_cart_with_vat"><error message="KeyError: 'vat'"/></testcase>
</testsuite>"""
AT_80 = """\
    2 of 2 tests failed: test_the_total_of_a_cart: AssertionError: 41 != 42,
        and 1 more test (exit code 1)
      test_the_total_of_a_cart_with_vat: KeyError: 'vat'
"""


async def test_a_terminal_of_80_columns_shows_the_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the job's line, and in its trace, it is broken between words; in a pipe it is not."""

    async def guest(command: GuestCommand) -> GuestOutcome:
        return GuestOutcome(exit_code=1, artifacts={"out/junit.xml": LONG})

    async with open_rig(tmp_path, guest_script=guest) as rig:
        job = await rig.live(spec("fail"))
        line = timeline(rig.entries())

    assert AT_80 == failure_text(job, colours=False, log=False, width=80)
    assert 2 == failure_text(job, colours=False, log=False).count("\n")
    show_job(job_story(line), holder="")
    assert "42, and 1 more test (exit code 1)\n" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_job(job_story(line), holder="")
    told = capsys.readouterr().out
    assert "  in running: 2 of 2 tests failed: test_the_total_of_a_cart: AssertionError:" in told
    assert " 41\n      != 42, and 1 more test (exit code 1)\n    test_the" in told
    # The last line of a run is cut: its end says least.
    ended = end_text([job], colours=False, width=80).splitlines()[1]
    assert ended == "  job  2 of 2 tests failed: test_the_total_of_a_cart: AssertionError: 41 !=..."


EVIL = REPORT.replace(b"assert 1 == 2", b"no&#10;&#x9b;31m token=hunter2 \xe2\x80\xae")


async def evil(command: GuestCommand) -> GuestOutcome:
    return GuestOutcome(exit_code=1, artifacts={"out/junit.xml": EVIL})


async def test_a_message_cannot_control_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """XML can have some controls; and what reorders text."""
    async with open_rig(tmp_path, guest_script=evil) as rig:
        job = await rig.live(spec("fail"))
        line = timeline(rig.entries())

    assert "\x9b" in job.reason and "\u202e" in job.reason
    print_jobs([job])
    print_tests(job)
    show_job(job_story(line), holder="")
    shown = capsys.readouterr().out + end_text([job], colours=False)
    assert 3 == shown.count("test_b: no")
    assert 4 == shown.count("token=hunter2")
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize(("value", "told"), [("hunter2", False), ("hunter3", True), (None, False)])
async def test_a_message_with_a_secret_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, told: bool
) -> None:
    """No event has it, nor the journal; nor any message, if the values are not known any more."""
    monkeypatch.setenv("TOKEN", value or "unknown")

    async def forgetful(command: GuestCommand) -> GuestOutcome:
        if value is None:
            monkeypatch.delenv("TOKEN")
        return await evil(command)

    async with open_rig(tmp_path, guest_script=forgetful) as rig:
        job = await rig.live(spec("fail", secrets={"TOKEN": SecretSource(env="TOKEN")}))
        cases = rig.journal.cases("r.1", outcomes=[CaseOutcome.FAILED])

    assert told == ("hunter2" in repr((job, cases)))
    names = "2 of 4 tests failed: test_b, test_c"
    assert told == (job.reason != names)
    assert job.tests is not None
    assert ("" if value is None else "no    database") == job.tests.failures[1].message


async def test_a_slow_report_does_not_hold_a_cancellation_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reads it is left to itself, and what it found is dropped."""
    begun, goes_on = threading.Event(), threading.Event()

    def read(*words: object) -> Reports:
        begun.set()
        goes_on.wait(30)
        return Reports(cases=[Case(name="late", outcome=CaseOutcome.PASSED)], found=True)

    monkeypatch.setattr(evidence, "read_reports", read)
    async with open_rig(tmp_path) as rig:
        plan = make_plan(JobSpec(command="true"), sample_remote_context())
        left = Evidence(plan, tmp_path, rig.context.incus, "")
        left._collected = ("junit.xml",)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.read_tests)
                assert await trio.to_thread.run_sync(begun.wait, 10)
                nursery.cancel_scope.cancel()
        goes_on.set()

    assert ((), None) == (left.cases, left.tests)


async def test_status_and_trace_tell_of_the_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Why the job failed, once with its exit code; the messages, and what was slow."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(spec("fail"))
        line = timeline(rig.entries())

    print_jobs([job])
    print_tests(job)
    show_job(job_story(line), holder="", told=case_lines(job.tests))

    out = capsys.readouterr().out
    status, trace = out.split("job  failed after")
    assert "2 of 4 tests failed: test_b: assert 1 == 2, and 1 more test\n" in status
    lines = ["test_b (500 ms): assert 1 == 2", "test_c (1.0 s): no database", COUNTS, SLOWEST]
    assert [f"  {each}" for each in lines] == status.splitlines()[-4:]
    assert f"  {COUNTS}\n  {SLOWEST}\n" in trace
    why = "2 of 4 tests failed: test_b: assert 1 == 2, and 1 more test (exit code 1)"
    assert f"  in running: {why}\n    test_c: no database\n" in trace


COUNTS = "4 tests, 1 failed, 1 had an error, 1 skipped; together 3.5 s"
SLOWEST = "slowest tests: test_a 2.0 s, test_c 1.0 s, test_b 500 ms"


def test_of_many_tests_that_failed_the_rest_is_counted() -> None:
    """Ten have a line; one without a time or a message is a name."""
    failed = [Case(name=f"t{number}", outcome=CaseOutcome.FAILED) for number in range(12)]

    assert [*(f"t{n}" for n in range(10)), "and 2 more tests"] == failed_case_lines(
        case_report(failed)
    )
    assert [] == failed_case_lines(None) == failed_case_lines(case_report([]))
