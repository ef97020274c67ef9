"""Why a command failed, from its log to what people and programs read, on the fake Incus."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from orchestrator.attempt.diagnosis import KILLED, NO_MEMORY
from orchestrator.attempt.plan import Plan, make_plan
from orchestrator.attempt.reason import OUT_OF_MEMORY, USED_UP, incomplete_log, reason_of
from orchestrator.attempt.result import GuestResult, GuestStatus
from orchestrator.cli.run_table import print_jobs
from orchestrator.cli.summary import end_text, failure_text, reason
from orchestrator.cli.trace_show import show_job
from orchestrator.contract import guest_files
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.report import job_document
from orchestrator.tracing.html import html
from orchestrator.tracing.story import job_story
from orchestrator.tracing.timeline import timeline
from states.outcome import Verdict
from states.spec import JobSpec, SecretSource
from tests.samples import sample_remote_context
from tests.unit.orchestrator.rig import open_rig

LINE = "price.c:3:18: error: 'vat' is undeclared"
LOG = b"gcc -c price.c\n\x1b[1mprice.c:3:18: \x1b[31merror: \x1b[0m'vat' is undeclared\n"
REPORT = b"<testsuite><testcase name='a'><failure message='no'/></testcase></testsuite>"


async def script(command: GuestCommand) -> GuestOutcome:
    command.print(LOG)
    report = {"junit.xml": REPORT} if "report" in command.text else {}
    return GuestOutcome(exit_code=0 if "passes" in command.text else 4, artifacts=report)


async def test_the_line_is_the_headline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In lists, in the document, on the terminal, in the trace; the exit code is beside it."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(JobSpec(command="make"))
        (row,) = rig.journal.jobs()
        line = timeline(rig.entries())

    assert ("test command exited with 4", LINE) == (job.message, job.reason)
    assert [f"{LINE} (exit code 4)"] == reason(job)
    assert LINE == row.message
    assert f"  job  {LINE} (exit code 4)\n" in end_text([job], colours=False)
    assert failure_text(job, colours=False, log=False) == f"    {LINE} (exit code 4)\n"
    document = json.loads(msgspec.json.encode(job_document(job)))
    assert ("test command exited with 4", LINE) == (document["message"], document["reason"])
    assert LINE == document["failure"]["message"]
    assert LINE == job_story(line).reason
    shown = "error: &#x27;vat&#x27; is undeclared <small>exit code 4</small>"
    assert shown in html([line]).decode()
    print_jobs([job])
    show_job(job_story(line), holder="")
    status, trace = capsys.readouterr().out.split("job  failed after")
    assert LINE in status
    assert f"  in running: {LINE} (exit code 4)\n" in trace


async def test_a_test_report_says_more(tmp_path: Path) -> None:
    """The tests that failed are the reason, where a report names them."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(JobSpec(command="report", junit=("junit.xml",)))

    assert "1 of 1 test failed: a: no" == job.reason


async def test_a_command_that_passed_has_no_reason(tmp_path: Path) -> None:
    """Whatever it printed."""
    async with open_rig(tmp_path, guest_script=script) as rig:
        job = await rig.live(JobSpec(command="passes"))

    assert (Verdict.PASSED, "") == (job.verdict, job.reason)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("vat", True),  # three letters are in many lines
        ("'vat'", False),
        ("other\n'vat' is\n", False),
        ("other", True),
    ],
)
async def test_a_line_with_a_secret_is_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, told: bool
) -> None:
    """The log keeps what the command printed; no event has it."""
    monkeypatch.setenv("TOKEN", value)
    async with open_rig(tmp_path, guest_script=script) as rig:
        spec = JobSpec(command="make", secrets={"TOKEN": SecretSource(env="TOKEN")})
        job = await rig.live(spec)

    assert (LINE if told else "") == job.reason
    assert job.failure is not None
    assert (LINE if told else "test command exited with 4") == job.failure.message


def plan(**keys: object) -> Plan:
    return make_plan(JobSpec(command="make", **keys), sample_remote_context())  # type: ignore[arg-type]


def result(code: int, hint: str = "") -> GuestResult:
    return GuestResult(
        schema=1,
        contract=1,
        nonce="",
        status=GuestStatus.FAILED,
        exit_code=code,
        finished_at="",
        message="",
        log_bytes=0,
        log_complete=True,
        hint=hint,
    )


def test_a_secret_that_is_gone_hides_every_line(tmp_path: Path) -> None:
    """Nobody can tell any more whether a line has it."""
    (tmp_path / "log").write_bytes(LOG)
    gone = plan(secrets={"TOKEN": SecretSource(file=str(tmp_path / "gone"))})

    assert "" == reason_of(gone, result(1), tmp_path / "log")
    assert LINE == reason_of(plan(), result(1), tmp_path / "log")


def test_a_guest_without_memory_is_the_reason(tmp_path: Path) -> None:
    """A killed program says nothing; pikaci knows."""
    (tmp_path / "log").write_bytes(LOG)

    for hint in (f"{NO_MEMORY} (1GiB)", f"{OUT_OF_MEMORY}; set memory in the job file"):
        assert OUT_OF_MEMORY == reason_of(plan(), result(KILLED, hint), tmp_path / "log")
    assert LINE == reason_of(plan(), result(KILLED), tmp_path / "log")
    assert "" == reason_of(plan(), result(1), tmp_path / "gone")


def test_what_was_used_up_is_the_reason_if_the_log_has_none(tmp_path: Path) -> None:
    """As the runner's own words in the guest say it; the log says it more exactly."""
    (tmp_path / "log").write_bytes(LOG)
    runner = (guest_files() / "pikaci-incus-run").read_text()

    for said in USED_UP:
        assert f'echo "{said}; ' in runner
        hint = f"{said}; the key x in the job file sets it"
        assert said == reason_of(plan(), result(1, hint), tmp_path / "gone")
        assert LINE == reason_of(plan(), result(1, hint), tmp_path / "log")


@pytest.mark.parametrize(
    ("hint", "reason", "guesses"),
    [
        ("", "", True),
        ("the workspace is read-only; x", "price.c:1:2: error: no", True),
        ("the guest's disk is full; x", "", False),
        ("the guest ran out of memory; x", "", False),
        ("the guest ran out of processes; x", "", False),
        ("the guest had used all its memory (1GiB) when the command was killed: x", "", False),
        ("the storage pool default is full or nearly full (9 GiB of 10 GiB): x", "", False),
        ("", "cp: cannot create 'a': No space left on device", False),
        ("", "tar: a: Wrote only 512 of 10240 bytes", False),
        ("", "1 of 2 tests failed: test_a: OSError: [Errno 122] Disk quota exceeded", False),
    ],
)
def test_why_a_log_is_incomplete_is_guessed_only_if_unknown(
    hint: str, reason: str, guesses: bool
) -> None:
    """A guess beside the reason would only say it again, or something else."""
    said = incomplete_log(result(1, hint), reason)

    assert said.startswith("the guest could not write all of its log")
    assert guesses == said.endswith(": was its disk full?")


async def test_a_job_on_a_full_disk_hears_of_it_once(tmp_path: Path) -> None:
    """As the reason; the log that is cut off for it is a warning without a guess."""

    async def full(command: GuestCommand) -> GuestOutcome:
        hint = "the guest's disk is full; set disk in the job file to make it larger"
        return GuestOutcome(exit_code=2, hint=hint, log_complete=False)

    async with open_rig(tmp_path, guest_script=full) as rig:
        job = await rig.live(JobSpec(command="fill"))

    key = "set disk in the job file to make it larger"
    assert ["the guest's disk is full (exit code 2)", f"-> {key}"] == reason(job)
    assert ("the guest could not write all of its log",) == job.warnings


@pytest.mark.parametrize(
    ("code", "told"), [(139, "segmentation fault"), (134, "aborted"), (137, "")]
)
def test_a_process_that_the_kernel_ended(tmp_path: Path, code: int, told: str) -> None:
    """The exit code says it, if nothing else does."""
    (tmp_path / "log").write_bytes(LOG)

    assert told == reason_of(plan(), result(code), tmp_path / "gone")
    assert LINE == reason_of(plan(), result(code), tmp_path / "log")
