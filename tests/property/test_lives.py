"""What holds for every sequence of events and every spec."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from states import events as ev
from states import trace
from states.errors import IllegalEvent, SpecError, WritableWorkspace
from states.job import Job, fold, step
from states.lifecycle import TERMINAL, State
from states.rules import CheckedSpec, check
from states.spec import JobSpec
from tests.samples import lives, sample_event, sample_note, specs, valid_specs

KINDS = st.sampled_from(ev.EVENT_TYPES)
NOTES = st.sampled_from(ev.AnyNote.__args__)


@given(st.lists(st.tuples(KINDS, st.integers(-1, 1), st.booleans()), max_size=20))
def test_any_event_moves_a_job_by_the_table_or_changes_nothing(
    steps: list[tuple[type[ev.Event], int, bool]],
) -> None:
    """Legal or not, of this job or another, in turn or not."""
    job = Job()
    for kind, off, ours in steps:
        event = sample_event(kind, job.seq + 1 + off, job="r.1" if ours else "x")
        before = msgspec.json.encode(job)
        try:
            after = step(job, event)
        except IllegalEvent:
            assert before == msgspec.json.encode(job)
            continue

        assert off == 0
        assert job.state is State.NEW or event.job == job.id
        assert job.state not in TERMINAL
        assert (job.seq + 1, event.job) == (after.seq, after.id)
        assert before == msgspec.json.encode(job)
        job = after


@given(lives(), st.lists(NOTES, max_size=5), st.randoms(use_true_random=False))
def test_a_trace_replays_to_its_job(life, kinds, random) -> None:  # type: ignore[no-untyped-def]
    """Whatever notes stand between the events."""
    entries = list(life)
    for kind in kinds:
        entries.insert(random.randint(0, len(entries)), sample_note(kind))

    job = fold(life)

    assert job == trace.replay(trace.encode("r.1", entries))
    assert sum(phase.duration_ms is None for phase in job.phases) == 1


@given(specs(writable=True), st.lists(KINDS, max_size=10))
def test_a_writable_job_never_gets_anywhere(spec: JobSpec, kinds: list[type[ev.Event]]) -> None:
    """Refused with exactly its words, and no events take it to a reset artifact directory."""
    words = "remote Linux VM backend `incus` does not support writable workspace jobs"
    for door in (check, CheckedSpec):
        with pytest.raises(WritableWorkspace) as caught:
            door(spec)
        assert words == str(caught.value)

    job = step(Job(), sample_event(ev.Rejected, 1, spec=spec))
    for kind in kinds:
        with pytest.raises(IllegalEvent):
            step(job, sample_event(kind, job.seq + 1))


@given(specs())
def test_what_is_checked_is_what_was_asked_for(spec: JobSpec) -> None:
    """A checked spec is an equal one, that nobody can change any more; or there is none."""
    try:
        checked = CheckedSpec(spec)
    except WritableWorkspace:
        assert spec.writable_workspace
        return

    before = msgspec.json.encode(spec)
    spec.env["LATER"] = "\0"
    assert not spec.writable_workspace
    assert before == msgspec.json.encode(checked.spec)
    with pytest.raises(AttributeError):
        checked.other = spec  # type: ignore[attr-defined]


@given(valid_specs())
def test_a_spec_survives_json(spec: JobSpec) -> None:
    """What is stored is what was asked for."""
    check(spec)

    assert spec == msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec)


@given(
    st.fixed_dictionaries(
        {"command": st.text(max_size=5)},
        optional={
            "timeout_secs": st.integers() | st.text(max_size=3),
            "env": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
            "artifacts": st.lists(st.text(max_size=4), max_size=2).map(tuple),
            "image": st.text(max_size=4),
        },
    )
)
def test_check_raises_nothing_but_its_own_error(fields: dict[str, object]) -> None:
    """A spec that was made by hand of any values is let through or refused, never a crash."""
    try:
        check(JobSpec(**fields))  # type: ignore[arg-type]
    except SpecError:
        pass
