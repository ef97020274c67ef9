"""What is printed of a run and its exit code agree, whatever its jobs are at."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations_with_replacement
from pathlib import Path

import msgspec
import pytest

from orchestrator.cli import options
from orchestrator.cli.summary import end_text
from orchestrator.report import run_report
from orchestrator.service.web import board
from orchestrator.service.web.summaries import Summary
from orchestrator.words import STATES, VERDICTS, job_word
from states import events as ev
from states.job import Job, fold
from states.lifecycle import State
from states.outcome import EXIT_CODES, Outcome, Verdict, overall
from tests.samples import PATH, sample_event, sample_life


def ended_with(outcome: Outcome) -> Job:
    end = sample_event(ev.ResultCollected, 6, outcome=outcome, exit_code=1, message="m")
    return fold([*sample_life(*PATH[:5]), end])


def damaged(state: State) -> Job:
    return Job(id="r.1", run="r", name="lint", state=state, damage="it is not an entry")


JOBS = {
    **{f"as far as {kind.__name__}": fold(sample_life(*PATH[:n])) for n, kind in enumerate(PATH[:5], 1)},
    **{outcome.value: ended_with(outcome) for outcome in Outcome},
    "retried": fold(sample_life(*PATH[:3], ev.Retried)),
    "cancelling": fold(sample_life(*PATH[:5], ev.CancelRequested)),
    "cancelled": fold(sample_life(*PATH[:5], ev.CancelRequested, ev.Cancelled)),
    "failed": fold(sample_life(*PATH[:3], ev.Failed)),
    "rejected": fold(sample_life(ev.Rejected)),
    "damaged while it ran": damaged(State.RUNNING),
    "damaged when it had ended": damaged(State.RESULT_COLLECTED),
}  # fmt: skip
RUNS = [jobs for count in range(4) for jobs in combinations_with_replacement(JOBS.values(), count)]


def counts_of(text: str) -> set[str]:
    """The parts of the line that counts jobs: the first that is no warning."""
    first = next(line for line in text.splitlines() if not line.startswith("warning: "))
    return set(first.split(", "))


@pytest.mark.parametrize("interrupted", [False, True])
def test_verdict_and_exit_code_of_every_run_agree(interrupted: bool) -> None:
    """Of no job to three, each at anything: nothing that is unfinished or unknown has passed."""
    for jobs in RUNS:
        report = run_report("r", jobs, interrupted=interrupted)
        counts = counts_of(end_text(jobs, colours=False, interrupted=interrupted))
        printed = msgspec.json.decode(msgspec.json.encode(report))

        passed = bool(jobs) and {job.verdict for job in jobs} == {Verdict.PASSED}
        assert (passed and not interrupted) == (report.exit_code == 0)
        assert (report.exit_code == 0) == (report.outcome is Verdict.PASSED)
        assert EXIT_CODES[report.outcome] == report.exit_code
        assert (report.outcome, report.exit_code) == (printed["outcome"], printed["exit_code"])
        words = [VERDICTS[job.verdict or Verdict.UNFINISHED] for job in jobs]
        told = {f"{words.count(word)} {word}" for word in words} or {"no job ran"}
        assert counts == told | ({"interrupted"} if interrupted else set())


def test_the_first_in_the_documented_order_counts() -> None:
    """Of several jobs: 2, 130, 1, 3, 4."""
    order = [2, 130, 1, 3, 4, 0]
    for jobs in RUNS[1:]:
        codes = [EXIT_CODES[job.verdict or Verdict.UNFINISHED] for job in jobs]
        assert min(codes, key=order.index) == run_report("r", jobs).exit_code


def summary_of(job: Job) -> Summary:
    """A job on the board, by hand: its mark is its verdict, or how far it is."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    word = job_word(job)
    mark = "damaged" if job.damage else job.verdict.value if job.verdict else "running"
    return Summary(
        id=job.id, run="r", number=1, name=job.name, state=job.state, verdict=job.verdict, mark=mark,
        word=word, submitted=at, begin=at, end=at if job.ended else None, message="",
        workspace="/src", commit="", dirty=False,
    )  # fmt: skip


def test_the_page_says_of_a_run_what_its_report_says() -> None:
    """Once it has ended; until then that it goes on, and never that it has passed."""
    for jobs in RUNS[1:]:
        found = board.run([summary_of(job) for job in jobs])
        report = run_report("r", jobs)

        if any(job.damage for job in jobs):
            assert "damaged" == found.mark
        elif all(job.ended for job in jobs):
            assert (report.outcome, VERDICTS[report.outcome]) == (found.mark, found.word)
        else:
            assert found.mark in ("running", "queued")
        assert (report.exit_code == 0) == (found.mark == "passed")


def test_every_verdict_has_its_words_and_its_code() -> None:
    """Wherever one is shown."""
    for verdict in Verdict:
        assert verdict in VERDICTS
        assert verdict in EXIT_CODES
        assert verdict is overall([verdict])


def test_every_state_has_its_word() -> None:
    """No two on a job's way have the same, and none is a name with underscores."""
    assert set(State) == set(STATES)
    assert len(set(STATES.values())) == len(State)
    assert not any("_" in word for word in (*STATES.values(), *VERDICTS.values()))


def test_what_to_type_next_means_the_same_state_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where `--state-root` or `--workspace` was given, the hints have it too."""
    failed = msgspec.structs.replace(ended_with(Outcome.FAILED), artifacts="/artifacts")
    monkeypatch.setattr(options, "root_flags", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIKACI_STATE_ROOT", raising=False)
    hints = []
    for workspace, root in ((tmp_path, None), (tmp_path / "other", None), (tmp_path, Path("a b"))):
        options.root_flags = ""
        options.state_root_of(workspace, root)
        hints.append(end_text([failed], colours=False).splitlines()[-1])

    assert [
        "-> pikaci rerun --failed",
        f"-> pikaci rerun --failed --workspace {tmp_path / 'other'}",
        "-> pikaci rerun --failed --state-root 'a b'",
    ] == hints


def test_a_job_that_cannot_be_read_is_shown_as_such() -> None:
    """Not by its last state, which is not known to be true."""
    assert "damaged" == job_word(damaged(State.RESULT_COLLECTED))
