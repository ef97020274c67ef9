"""A job as the fold of its events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from states import events as ev
from states.errors import IllegalEvent
from states.job import Job, fold, step, verdict_of
from states.lifecycle import State
from states.outcome import EXIT_CODES, FailureKind, Outcome, Verdict, overall
from tests.samples import FAILURE, PATH, sample_event, sample_life, sample_shell_job


def test_a_passed_job_knows_what_its_events_told() -> None:
    """Every fact that an event carries is in the job."""
    job = fold(sample_life())

    assert (State.RESULT_COLLECTED, Outcome.PASSED, 0) == (job.state, job.outcome, job.exit_code)
    assert ("r.1", "r", "lint", "/src", 1, 1) == (
        job.id,
        job.run,
        job.name,
        job.workspace,
        job.contract,
        job.attempt,
    )
    assert job.snapshot is not None
    assert job.image is not None
    assert ("abc", "pikaci-x", "pikaci/dev") == (job.snapshot.hash, job.instance, job.image.alias)
    assert "/state/jobs/r.1/attempt-1" == job.artifacts
    assert sample_shell_job() == job.spec
    assert job.failure is None
    assert job.ended


def test_a_rejected_job_knows_what_was_refused_and_never_had_an_attempt() -> None:
    """What was asked for, by whom, and why not."""
    event = sample_event(ev.Rejected, 1)

    job = fold([event])

    assert (event.run, event.name, event.workspace) == (job.run, job.name, job.workspace)
    assert (event.spec, event.failure, 0) == (job.spec, job.failure, job.attempt)


@pytest.mark.parametrize(
    ("outcome", "kind", "verdict"),
    [
        (Outcome.FAILED, FailureKind.TEST, Verdict.FAILED),
        (Outcome.TIMED_OUT, FailureKind.TIMEOUT, Verdict.TIMED_OUT),
    ],
)
def test_a_command_that_did_not_pass_has_a_failure_of_its_kind(
    outcome: Outcome, kind: FailureKind, verdict: Verdict
) -> None:
    """The kind follows from the outcome; the hint is the way out."""
    end = sample_event(
        ev.ResultCollected,
        6,
        outcome=outcome,
        exit_code=7,
        message="m",
        hint="try this",
        warnings=("w",),
    )

    job = fold([*sample_life(*PATH[:5]), end])

    assert (7, "m", "try this", ("w",)) == (job.exit_code, job.message, job.hint, job.warnings)
    assert job.failure is not None
    assert (kind, "m", "try this") == (
        job.failure.kind,
        job.failure.message,
        job.failure.resolution,
    )
    assert verdict == job.verdict


@pytest.mark.parametrize(
    ("kinds", "verdict"),
    [
        ((ev.Rejected,), Verdict.REJECTED),
        ((ev.Submitted, ev.Failed), Verdict.INFRASTRUCTURE),
        ((ev.Submitted, ev.CancelRequested, ev.Cancelled), Verdict.CANCELLED),
        ((ev.Submitted,), None),
        (PATH, Verdict.PASSED),
    ],
)
def test_the_verdict_follows_from_the_end(
    kinds: tuple[type[ev.Event], ...], verdict: Verdict | None
) -> None:
    """One word for each way to end; none before."""
    job = fold(sample_life(*kinds))

    assert verdict == job.verdict
    assert (verdict is not None) == job.ended


def test_a_job_that_today_s_rules_refuse_is_rejected_though_it_failed() -> None:
    """Its author must change it; that it was accepted once is in its history."""
    submitted, failed = sample_life(ev.Submitted, ev.Failed)
    failure = replace(failed.failure, kind=FailureKind.CONFIG)

    failed = replace(failed, failure=failure)
    job = fold([submitted, failed])

    assert (State.FAILED, Verdict.REJECTED) == (job.state, job.verdict)
    assert Verdict.REJECTED is verdict_of(failed)


def test_phases_have_start_and_duration_also_when_a_job_fails_half_way() -> None:
    """Each state that was passed, when it was entered, and how long it took."""
    job = fold(sample_life(ev.Submitted, ev.ArtifactsReset, ev.DevicesConfigured, ev.Failed))

    assert [
        ("submitted", 1000.0),
        ("artifacts_reset", 1000.0),
        ("devices_configured", 1000.0),
        ("failed", None),
    ] == [(phase.state, phase.duration_ms) for phase in job.phases]
    assert [4, 5, 6, 7] == [phase.entered_at.second - 2 for phase in job.phases]


def test_a_retry_is_a_new_attempt_with_nothing_of_the_old_one() -> None:
    """Instance, image and artifacts are those of the current attempt."""
    job = fold(sample_life(*PATH[:3], ev.Retried))

    assert (State.SUBMITTED, 2) == (job.state, job.attempt)
    assert (None, None, None) == (job.instance, job.image, job.artifacts)


@pytest.mark.parametrize("kind", [ev.Retried, ev.Lost, ev.Restarted])
@pytest.mark.parametrize("choice", [("a", "local", "b"), ()])
def test_a_choice_of_hosts_comes_back_with_the_one_that_failed_last(
    kind: type[ev.Event], choice: tuple[str, ...]
) -> None:
    """Unless the attempt ended for another reason, or there was no choice: then the host stays."""
    submitted, reset, again = sample_life(ev.Submitted, ev.ArtifactsReset, kind)
    submitted = replace(submitted, hosts=choice)
    for there, last in (("", "local"), ("b", "b")):
        job = fold([submitted, replace(reset, host=there), again])

        others = tuple(name for name in choice if name != last)
        if choice and kind is not ev.Restarted:
            assert ("", (*others, last)) == (job.host, job.hosts)
        else:
            assert (there, ()) == (job.host, job.hosts)


def test_another_job_s_event_is_refused() -> None:
    """An event belongs to one job."""
    job = fold(sample_life(ev.Submitted))

    with pytest.raises(IllegalEvent, match="belongs to job x"):
        step(job, sample_event(ev.ArtifactsReset, 2, job="x"))


@pytest.mark.parametrize("seq", [1, 3])
def test_a_gap_or_a_repeated_event_is_refused(seq: int) -> None:
    """Numbers count from 1 without a gap."""
    job = fold(sample_life(ev.Submitted))

    with pytest.raises(IllegalEvent, match=f"number {seq} where 2 is due"):
        step(job, sample_event(ev.ArtifactsReset, seq))


def test_what_was_recorded_is_not_judged() -> None:
    """A spec that would be refused today was not on its day: the job is what its events say."""
    spec = sample_shell_job(command="", cpus=10_000, writable_workspace=True)
    event = sample_event(ev.Submitted, 1, spec=spec)

    assert (spec, State.SUBMITTED) == ((job := step(Job(), event)).spec, job.state)


@pytest.mark.parametrize(
    ("boots", "monotonic", "spent"),
    [
        (("a", UNSET), 107.0, 7.0),  # the clock of a boot measures
        (("a", "b"), 107.0, 60.0),  # another boot's does not, however late
        ((UNSET, UNSET), 3.0, 60.0),  # one that went back is another's
        ((UNSET, "b"), 107.0, 60.0),  # of an older pikaci, that did not say
    ],
    ids=["one boot", "another", "not said", "said since"],
)
def test_a_phase_that_spans_a_reboot_has_its_time(
    boots: tuple[Any, Any], monotonic: float, spent: float
) -> None:
    """The monotonic clock begins anew with the host; then the wall clock tells."""
    first = sample_event(ev.Submitted, 1, boot=boots[0], monotonic=100.0)
    minute_later = {"at": first.at + timedelta(seconds=60), "monotonic": monotonic}

    job = fold([first, sample_event(ev.ArtifactsReset, 2, boot=boots[1], **minute_later)])

    assert spent * 1000 == job.phases[0].duration_ms


def test_a_failure_is_the_event_s() -> None:
    """Phase and message stand as they were recorded."""
    assert FAILURE == fold(sample_life(ev.Submitted, ev.Failed)).failure


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 4),
        ([None], 4),
        (["passed", None], 4),
        (["failed", None], 1),
        (["cancelled", None], 130),
        (["passed", "passed"], 0),
        (["passed", "failed"], 1),
        (["failed", "timed_out", "infrastructure"], 1),
        (["timed_out", "infrastructure"], 3),
        (["passed", "infrastructure"], 4),
        (["failed", "cancelled"], 130),
        (["rejected"], 2),
    ],
)
def test_the_exit_code_of_several_jobs(verdicts: list[str | None], code: int) -> None:
    """The first in the order 130, 1, 3, 4 counts; a job that has not ended is no pass."""
    found = overall(verdict and Verdict(verdict) for verdict in verdicts)

    assert code == EXIT_CODES[found]
