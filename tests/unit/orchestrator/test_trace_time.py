"""Where the time of a job, and of a run, went."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.attempt import effects as commands
from orchestrator.attempt.archive import collect_command
from orchestrator.attempt.plan import make_plan
from orchestrator.fake_incus import words
from orchestrator.incus import Incus, stdin_of
from orchestrator.incus.errors import AgentAway, classify
from orchestrator.tracing.effects import command_of
from orchestrator.tracing.parts import afterwards, parts, summed
from orchestrator.tracing.path import path_of_job, path_of_run
from orchestrator.tracing.story import job_story, run_story
from orchestrator.tracing.timeline import Kind, Timeline, timeline
from states import events as ev
from states.upcast import upcast
from tests.samples import (
    BEGAN,
    PATH,
    lives,
    sample_life,
    sample_remote_context,
    sample_shell_job,
)


def at(secs: float) -> dict[str, Any]:
    """When an entry was written: one second after the submission is 1."""
    return {"at": BEGAN + timedelta(seconds=1 + secs), "monotonic": 101.0 + secs}


def call(end: float, secs: float, *argv: str, error: str = "", job: str = "r.1") -> ev.Called:
    words = ("incus", *argv)
    return ev.Called(
        v=2,
        job=job,
        argv=words,
        effect=upcast({"type": "called", "argv": words})["effect"],
        duration_ms=secs * 1000,
        exit_code=1 if error else 0,
        error=error,
        **at(end),
    )


def look(end: float, secs: float, error: str) -> ev.Called:
    """The exec that waits for its guest and runs the command."""
    return msgspec.structs.replace(call(end, secs, "exec", error=error), effect="run")


def waited(end: float, secs: float, what: ev.WaitFor, *, after: str = "", job: str = "r.1") -> Any:
    return ev.Waited(job=job, what=what, duration_ms=secs * 1000, after=after, **at(end))


def among(events: list[Any], *notes: ev.Entry) -> list[ev.Entry]:
    """The events with the notes where they belong in time."""
    return sorted([*events, *notes], key=lambda entry: (entry.at, isinstance(entry, ev.Event)))


def told(job: Timeline, state: int) -> list[tuple[str, float]]:
    return [(part.name, round(part.secs, 3)) for part in parts(job, job.states[state])]


def test_an_old_notes_effect_is_read_from_its_command() -> None:
    """Once, as it is brought up: those that are written now have it beside them."""
    plan = make_plan(sample_shell_job(artifacts=("a",)), sample_remote_context())
    incus = Incus(None)  # type: ignore[arg-type]
    made = {
        "create": replace(commands.create(plan), args=("create", "local:x", "local:y")),
        "start": commands.start(plan),
        "ready": commands.ready(plan),
        "run": commands.run(plan, stdin=stdin_of(bytes)),
        "cancel": commands.cancel(plan, now=True),
        "collect": commands.collect(plan, collect_command(plan.artifacts, want_log=True)),
        "pull": commands.pull_result(plan),
        "delete": commands.delete(plan),
    }

    def brought_up(*argv: str) -> str:
        return str(upcast({"type": "called", "argv": argv})["effect"])

    assert list(made) == [brought_up(*incus.argv(effect)) for effect in made.values()]
    assert list(made) == [effect.name for effect in made.values()]
    assert "follow" == brought_up(*incus.argv(commands.follow(plan, 7)))
    assert "incus exec" == command_of(incus.argv(commands.run(plan, stdin=stdin_of(bytes))))
    assert ("incus", "exec") == (brought_up(), brought_up("incus", "exec", "--", "sh", "-c"))


def test_a_state_is_filled_by_calls_waits_and_our_own_work() -> None:
    """They follow each other without a gap; what began last has the time of both."""
    job = timeline(
        among(
            sample_life(),
            waited(0.75, 0.5, ev.WaitFor.PLACE, after="r.9"),
            call(1.5, 0.25, "create"),
            call(4.5, 1.0, "exec", "--", "env", "/bin/pikaci-incus-run"),
            call(4.25, 0.25, "query"),
            call(5.5, 0.5, "delete"),
        )
    )

    assert [("host", 0.25), ("place", 0.5), ("host", 0.25)] == told(job, 0)
    assert [("host", 0.25), ("create", 0.25), ("host", 0.5)] == told(job, 1)
    assert [("host", 0.5), ("run", 0.5)] == told(job, 3)
    assert [("query", 0.25), ("run", 0.25), ("host", 0.5)] == told(job, 4)
    assert ["delete"] == [span.name for span in afterwards(job)]


@given(
    lives(),
    st.lists(
        st.tuples(st.floats(0, 8), st.floats(0, 4), st.sampled_from(["create", "exec", "query"])),
        max_size=8,
    ),
)
def test_parts_fill_their_state_whatever_the_calls(
    events: list[Any], calls: list[tuple[float, float, str]]
) -> None:
    """Without a gap and without an overlap; and the critical path is as long as the job."""
    job = timeline(among(events, *(call(end, secs, verb) for end, secs, verb in calls)))

    for state in job.states:
        cut = parts(job, state)
        moments = [state.begin, *(part.end for part in cut)]
        assert [part.begin for part in cut] == moments[:-1]
        assert not state.secs or state.end == moments[-1]
        assert all(one.name != other.name or one.detail for one, other in pairwise(cut))
    assert (job.settled - job.begin).total_seconds() == pytest.approx(
        sum(step.secs for step in path_of_job(job)), abs=1e-4
    )
    assert job_story(job).id == job.id


def test_a_call_beside_another_is_counted_once() -> None:
    """Its time is cut in two by one that ran meanwhile."""
    job = timeline(among(sample_life(), call(4.9, 0.8, "start"), call(4.5, 0.25, "query")))
    cut = parts(job, next(state for state in job.states if state.name == "running"))

    shares = {share.name: share for share in summed(cut)}
    assert 3 <= len([part for part in cut if part.kind is Kind.CALL])
    assert (1, 1) == (shares["start"].count, shares["query"].count)
    assert 0.55 == pytest.approx(shares["start"].secs)


def test_nothing_waits_for_a_persons_shell() -> None:
    """The time of a command counts for it, also while somebody has a shell beside it."""
    shell = msgspec.structs.replace(call(4.5, 1.2, "exec"), effect="shell")
    without, beside = (timeline(among(sample_life(), *more)) for more in ([], [shell]))

    states = range(len(without.states))
    assert [told(without, state) for state in states] == [told(beside, state) for state in states]


def test_incus_is_waited_for_between_a_call_that_failed_and_the_same_once_more() -> None:
    """And the next attempt, for the delay that was drawn."""
    events = sample_life(*PATH[:2], ev.Retried, *PATH[1:])
    events[2] = msgspec.structs.replace(events[2], delay_secs=0.75)
    job = timeline(
        among(
            events,
            call(1.25, 0.25, "create", error="incus create failed: no daemon"),
            call(2.0, 0.25, "create", error="incus create failed: no daemon"),
        )
    )

    assert [("create", 0.25), ("incus", 0.5), ("create", 0.25)] == told(job, 1)
    assert [("delay", 0.75), ("host", 0.25)] == told(job, 2)
    assert ["attempt 1", "incus", "delay", "host"] == [step.name for step in path_of_job(job)]
    assert [2, 0.5] == [len(job_story(job).faults), job_story(job).waited[0].secs]


@pytest.mark.parametrize("said", [words.AGENT_AWAY, "Failed to connect to the agent"])
def test_a_vm_that_boots_is_waited_for_from_the_first_look_to_the_last(said: str) -> None:
    """An exec that it does not take is no fault, and no command is retried; later it is a fault."""
    away = f"incus exec failed: {said}"
    assert classify(f"Error: {said}") is AgentAway
    looks = [look(2.25, 0.125, away), look(2.5, 0.125, away)]
    job = timeline(among(sample_life(*PATH), *looks, look(4.5, 1.75, "")))
    broken = timeline(among(sample_life(*PATH), *looks, look(4.5, 1.75, away)))

    (ready,) = [part for part in job_story(job).states[2].parts if part.name == "ready"]
    assert (3, 0, 0.875, "incus exec") == (ready.count, ready.failed, ready.secs, ready.command)
    assert {"ready", "host"} == {name for name, _ in told(job, 2)}
    assert "incus" not in [step.name for step in path_of_job(job)]
    assert [("ready", 0.875)] == [(wait.name, wait.secs) for wait in job_story(job).waited]
    assert [0, 1] == [len(job_story(each).faults) for each in (job, broken)]


def test_what_goes_on_is_said_to_as_far_as_the_clock_has_come() -> None:
    """The journal has a call only when it has ended."""
    now = BEGAN + timedelta(seconds=9)
    waits = timeline(sample_life(ev.Submitted), until=now)
    runs = timeline(sample_life(*PATH[:5]), until=now)

    assert [("place", 8.0)] == told(waits, 0)
    assert [("run", 1.0)] == told(runs, 3)
    assert [("run", 4.0)] == told(runs, 4)
    assert [True] == [part.going_on for part in job_story(runs).states[4].parts]
    assert datetime(2026, 1, 2, 3, 4, 14, tzinfo=UTC) == runs.settled


def test_the_wait_for_a_ready_guest_is_the_beginning_of_one_call() -> None:
    """Also while that goes on, and whatever is read from Incus meanwhile."""
    look = call(2.5, 0.25, "query", "/1.0/instances")
    runs = timeline(among(sample_life(*PATH[:5]), look), until=BEGAN + timedelta(seconds=9))
    one = call(5.0, 3.0, "exec", "--", "env", "/bin/pikaci-incus-run")
    ended = timeline(among(sample_life(), look, one))

    assert [("ready", 1.0)] == told(runs, 2) == told(ended, 2)
    assert [("run", 1.0)] == told(ended, 3)
    assert not job_story(runs).states[2].parts[0].going_on


def test_a_cancelled_call_is_no_fault() -> None:
    """Nobody wanted its end any more."""
    cut_off = ev.Called(
        v=2, job="r.1", argv=("incus", "exec"), duration_ms=10, exit_code=None, **at(4)
    )
    job = timeline(among(sample_life(*PATH[:5], ev.CancelRequested, ev.Cancelled), cut_off))

    assert () == job_story(job).faults


def chained(number: int, place: float, end: float, after: str) -> Timeline:
    """A job of a run that had its place at `place` seconds, when `after` made way."""
    id = f"r.{number}"
    first, last = sample_life(ev.Submitted, ev.Failed)
    events = [
        msgspec.structs.replace(first, job=id, name=f"job-{number}"),
        msgspec.structs.replace(last, job=id, **at(end)),
    ]
    notes = [waited(place, place, ev.WaitFor.PLACE, after=after, job=id)] if place else []
    return timeline(among(events, *notes))


def test_a_runs_critical_path_goes_through_the_places() -> None:
    """From who ended last, to who made way for it, to the beginning."""
    jobs = [
        chained(1, 0, 2, ""),
        chained(2, 0, 3, ""),
        chained(3, 2, 7, "r.1"),
        chained(4, 3, 4, "r.2"),
    ]
    story = run_story(jobs)

    assert [("job-1", 2.0), ("job-3", 5.0)] == [(link.name, link.secs) for link in story.path]
    assert (7.0, [0, 0, 2, 3]) == (story.secs, [job.place for job in story.jobs])


def test_a_job_of_another_run_may_have_held_the_place() -> None:
    """It is named; so is a path that would go in a circle, by ending."""
    (foreign,) = path_of_run([chained(1, 2, 3, "other.7")])
    circle = path_of_run([chained(1, 2, 3, "r.2"), chained(2, 2, 3, "r.1")])

    assert ("other.7", 2.0, 1.0) == (foreign.foreign, foreign.waited, foreign.secs)
    assert 2 == len(circle)


def test_spans_say_what_they_are() -> None:
    """For the programs that read the story."""
    job = timeline(among(sample_life(), call(1.5, 0.25, "create")))
    kinds = {part.kind for state in job_story(job).states for part in state.parts}

    assert {Kind.CALL, Kind.HOST} == kinds
