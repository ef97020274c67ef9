"""A job, its instance's lease, a daemon that may do anything, and deaths at any instant.

Every reachable state of this small world is visited, by every interleaving of what the job's task,
Incus, a client's death, a person and a next start can do. What a real process does is the same:
`states.ending` names each action, and `states.lease` each step of the lease. In a second world the
instance is a warm guest, which is made first and may be claimed by the job, or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import pytest

from states.ending import Action, Intent, end_plan, release_plan
from states.errors import IllegalEvent
from states.lease import JOINT, TABLE, LeaseEvent, LeaseState, step, taken_over
from states.lifecycle import TERMINAL, State

S = State
RUNS = (S.INSTANCE_READY, S.RUNNING)


@dataclass(frozen=True)
class Journal:
    """What is durable: the job's state, and the lease as far as it is written."""

    job: State = S.ARTIFACTS_RESET
    before: State = S.ARTIFACTS_RESET
    opened: bool = False
    made: bool = False
    claimed: bool = True  # the lease is the job's, not only the pool's
    kept: bool = False
    ended: bool = False
    told: int = 0  # how often the job's end was written


@dataclass(frozen=True)
class World:
    """The journal; the process's own knowledge (`lease` is None when it is dead); and Incus."""

    journal: Journal = field(default_factory=Journal)
    lives: bool = True
    ending: bool = False
    claiming: bool = False  # it has claimed the guest, and plugs it now
    lease: LeaseState | None = None
    failed: frozenset[Action] = frozenset()
    intent: Intent = Intent.RUN
    in_flight: bool = False  # a create that may yet be carried out
    there: bool = False  # the instance
    stops: bool = False  # Incus was told to stop it, and deletes it then
    runs: bool = False  # the command, in it

    def check(self) -> None:
        """What must hold in every state of the world."""
        journal = self.journal
        assert journal.told <= 1, "an end was told twice"
        assert (journal.told == 1) == (journal.job in TERMINAL)
        if self.there or self.in_flight:
            assert journal.opened, "an instance that nobody wrote down"
            assert not journal.ended, "a lease ended, and its instance is there"
        if self.runs:
            assert self.there
            assert journal.claimed, "a command in a guest of no job"
            assert journal.job is not S.CANCELLED, "a command outlived its cancellation"
        if self.lives and self.lease is not None and journal.claimed:
            assert self.lease in JOINT[journal.job], (journal.job, self.lease)


def ended(world: World, state: State) -> World:
    journal = replace(world.journal, job=state, told=world.journal.told + 1)
    return replace(world, journal=journal, ending=True)


def moves(world: World) -> Iterator[tuple[str, World]]:
    """All that can happen next."""
    yield from _incus(world)
    if not world.lives:
        yield from _next_start(world)
        return
    yield (
        "killed",
        replace(
            world,
            lives=False,
            ending=False,
            claiming=False,
            lease=None,
            failed=frozenset(),
            intent=Intent.RUN,
        ),
    )
    if not world.journal.claimed:
        yield from _pool(world)
        return
    for intent in Intent:
        if intent > world.intent:
            yield f"intent {intent.name}", replace(world, intent=intent, ending=True)
    if world.ending:
        yield from _end(world)
    else:
        yield from _live(world)


def _incus(world: World) -> Iterator[tuple[str, World]]:
    """What Incus does by itself: a late create, a guest that ends."""
    if world.in_flight:
        yield "create lands", replace(world, in_flight=False, there=True)
        yield "create comes to nothing", replace(world, in_flight=False)
    if world.stops and world.there:
        yield "deleted by itself", replace(world, there=False, stops=False, runs=False)
        yield "Incus was killed", replace(world, stops=False)
    if world.runs:
        yield "command ends", replace(world, runs=False)


def _next_start(world: World) -> Iterator[tuple[str, World]]:
    """Another process takes over what the journal tells of."""
    journal = world.journal
    lease = None
    if journal.opened and not journal.ended:
        lease = taken_over(made=journal.made, kept=journal.kept)
    over = journal.job in TERMINAL or not journal.claimed
    yield "next start", replace(world, lives=True, lease=lease, ending=over)


def _pool(world: World) -> Iterator[tuple[str, World]]:
    """What becomes of a warm guest until a job has claimed it."""
    lease = world.lease
    if world.ending:
        action = release_plan(lease, world.intent, failed=world.failed)
        for name, after in _perform(world, action):
            yield f"{action.name}: {name}", after
        return
    assert lease is not None
    given_up = replace(world, ending=True)
    yield "given up", given_up
    if lease is LeaseState.INTENDED:
        asked = replace(world, lease=step(lease, LeaseEvent.ASK))
        answered = step(asked.lease or lease, LeaseEvent.ANSWER)
        yield "create answered", replace(asked, lease=answered, there=True)
        yield "create refused", replace(asked, lease=answered, ending=True)
        for there, in_flight in ((True, False), (False, True), (False, False)):
            yield (
                "create unanswered",
                replace(asked, there=there, in_flight=in_flight, ending=True),
            )
    elif lease is LeaseState.MADE:
        yield "booted", replace(world, lease=step(lease, LeaseEvent.BOOT))
    elif lease is LeaseState.WARM:
        claimed = replace(world.journal, claimed=True, made=True)
        ours = replace(world, journal=claimed, lease=step(lease, LeaseEvent.CLAIM), claiming=True)
        yield "claimed", ours


def _live(world: World) -> Iterator[tuple[str, World]]:
    """The job's own effects, each with every way in which it can end."""
    journal, lease = world.journal, world.lease
    if journal.job is S.ARTIFACTS_RESET and lease is None and not journal.opened:
        opened = replace(world, journal=replace(journal, opened=True), lease=LeaseState.INTENDED)
        yield "lease opened", opened
    elif lease is LeaseState.INTENDED:
        asked = replace(world, lease=step(lease, LeaseEvent.ASK))
        answered = step(asked.lease or lease, LeaseEvent.ANSWER)
        yield "create answered", replace(asked, lease=answered, there=True)
        yield "create refused", ended(replace(asked, lease=answered), S.FAILED)
        # Killed, cut off or late: it may be carried out, or has been.
        for there, in_flight in ((True, False), (False, True), (False, False)):
            lost = replace(asked, there=there, in_flight=in_flight)
            yield "create unanswered", ended(lost, S.FAILED)
            yield (
                "create cancelled",
                replace(lost, ending=True, intent=max(Intent.CANCEL, world.intent)),
            )
    elif (
        journal.job is S.ARTIFACTS_RESET
        and lease is LeaseState.MADE
        and (world.claiming or not journal.made)
    ):
        yield (
            "devices configured",
            replace(
                world,
                claiming=False,
                journal=replace(journal, job=S.DEVICES_CONFIGURED, made=True),
            ),
        )
        if world.claiming:
            yield "not plugged", ended(world, S.FAILED)
    elif journal.job is S.DEVICES_CONFIGURED and lease is LeaseState.MADE:
        yield "ready", replace(world, journal=replace(journal, job=S.INSTANCE_READY))
        yield "failed", ended(world, S.FAILED)
    elif journal.job is S.INSTANCE_READY:
        running = replace(world, journal=replace(journal, job=S.RUNNING))
        yield "running", replace(running, runs=world.there)
        yield "failed", ended(world, S.FAILED)
    elif journal.job is S.RUNNING:
        yield "collected", ended(replace(world, runs=False), S.RESULT_COLLECTED)
        yield "failed", ended(world, S.FAILED)
    else:
        # Half made by a process that died: let go, and failed here for the sake of a small world.
        yield "given up", ended(world, S.FAILED)


def _end(world: World) -> Iterator[tuple[str, World]]:
    """What `end_plan` names, with every way in which it can end."""
    journal = world.journal
    for keep, hand_over in product((False, journal.job in (S.FAILED, S.CANCELLED)), (False, True)):
        action = end_plan(
            journal.job,
            journal.before,
            world.lease,
            world.intent,
            keep=keep,
            hand_over=hand_over,
            failed=world.failed,
        )
        for name, after in _perform(world, action):
            yield f"{action.name}: {name}", after


def _perform(world: World, action: Action) -> Iterator[tuple[str, World]]:
    journal, lease = world.journal, world.lease
    failed = replace(world, failed=world.failed | {action})
    match action:
        case Action.REQUEST:
            asked = replace(journal, job=S.CANCELLING, before=journal.job)
            yield "written", replace(world, journal=asked, intent=max(Intent.CANCEL, world.intent))
        case Action.KILL:
            dead = replace(world, runs=False)
            yield "dead", ended(dead, S.CANCELLED)
            yield "dead, unheard", replace(failed, runs=False)
            yield "failed", failed
        case Action.CONFIRM:
            yield "written", ended(world, S.CANCELLED)
        case Action.RELEASE:
            assert lease is not None
            gone = step(lease, LeaseEvent.NOT_FOUND)
            yield "written", replace(world, lease=gone, journal=replace(journal, ended=True))
        case Action.KEEP:
            assert lease is not None
            kept = step(lease, LeaseEvent.KEEP)
            yield "written", replace(world, lease=kept, journal=replace(journal, kept=True))
        case Action.HAND_OVER:
            assert lease is not None
            over = step(lease, LeaseEvent.HAND_OVER)
            yield "accepted", replace(world, lease=over, stops=True)
            yield "failed", failed
            yield "accepted, unheard", replace(failed, stops=True)
        case Action.DELETE:
            assert lease is not None
            waits = lease in (LeaseState.ASKED, LeaseState.ABSENT)
            asked_for = world if waits else replace(world, lease=step(lease, LeaseEvent.DELETE))
            assert asked_for.lease is not None
            event = LeaseEvent.DELETED if world.there else LeaseEvent.NOT_FOUND
            after = step(asked_for.lease, event)
            bare = replace(asked_for, there=False, stops=False, runs=False)
            yield (
                "seen",
                replace(
                    bare, lease=after, journal=replace(journal, ended=after is LeaseState.GONE)
                ),
            )
            yield "failed", replace(asked_for, failed=failed.failed)
            yield (
                "done, unheard",
                replace(asked_for, failed=failed.failed, there=False, stops=False, runs=False),
            )
        case Action.OUTLAST:
            assert lease is not None
            if not world.in_flight:
                yield "outlasted", replace(world, lease=step(lease, LeaseEvent.OUTLAST))


COLD = World()
# The pool has written that it will make a guest, and knows of it.
WARM = World(
    journal=Journal(opened=True, claimed=False),
    lease=LeaseState.INTENDED,
)


def explore(start: World = COLD) -> tuple[set[World], int]:
    """All worlds that can be reached, and how many moves lead there."""
    seen, todo, count = {start}, [start], 0
    while todo:
        world = todo.pop()
        world.check()
        for _, after in moves(world):
            count += 1
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen, count


def settle(world: World) -> World:
    """One more start, and from now on all goes well and nobody wants anything."""
    if world.in_flight:
        world = replace(world, in_flight=False, there=True)
    world = replace(
        world, lives=False, claiming=False, lease=None, failed=frozenset(), intent=Intent.RUN
    )
    ((_, world),) = _next_start(world)
    for _ in range(30):
        if not world.journal.claimed:
            choices = list(_pool(world))
        else:
            choices = list(_end(world)) if world.ending else list(_live(world))
        if not choices:
            return world
        world = choices[0][1]
        world.check()
    raise AssertionError("it does not come to rest")


def test_every_interleaving_keeps_what_is_promised() -> None:
    """No instance leaks, none is forgotten, and no end is told twice: in every reachable state."""
    worlds, count = explore()

    assert len(worlds) > 500
    assert count > 2 * len(worlds)


def test_every_interleaving_with_a_warm_guest_keeps_it_too() -> None:
    """The same, and no command runs in a guest that no job has claimed."""
    worlds, count = explore(WARM)
    claimed = {world for world in worlds if world.journal.claimed}

    assert claimed and worlds - claimed
    assert any(world.runs for world in claimed)
    assert count > 2 * len(worlds)


@pytest.mark.parametrize("start", [COLD, WARM], ids=["cold", "warm"])
def test_from_every_state_a_good_start_leads_to_rest(start: World) -> None:
    """After it, the job has ended and no instance is there; nor is a guest that none has claimed."""
    for world in explore(start)[0]:
        rest = settle(world)
        assert rest.journal.job in TERMINAL or not rest.journal.claimed
        assert (False, False) == (rest.there, rest.in_flight)
        assert rest.journal.ended or not rest.journal.opened


def test_a_broken_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is no formality: without the wait for an unanswered create, an instance leaks."""
    table = {(source, event): dest for event, sources, dest in TABLE for source in sources}
    table[LeaseState.ASKED, LeaseEvent.NOT_FOUND] = LeaseState.GONE
    monkeypatch.setattr(f"{__name__}.step", lambda state, event: table[state, event])

    with pytest.raises(AssertionError, match="a lease ended, and its instance is there"):
        explore()


def test_a_step_that_is_not_in_the_table() -> None:
    """It is refused by its name, and nothing happens."""
    allowed = {(source, event) for event, sources, _ in TABLE for source in sources}
    for state in LeaseState:
        for event in LeaseEvent:
            if (state, event) not in allowed:
                with pytest.raises(IllegalEvent, match=f"{state.value} cannot take the event"):
                    step(state, event)


@pytest.mark.parametrize("state", [None, *LeaseState])
def test_a_detached_process_touches_nothing(state: LeaseState | None) -> None:
    """Whatever there is, it is the next start's."""
    for job in State:
        assert Action.LEAVE is end_plan(job, job, state, Intent.DETACH)


@pytest.mark.parametrize("state", [None, *LeaseState])
def test_what_failed_is_not_done_again(state: LeaseState | None) -> None:
    """So that an end always ends."""
    for intent in Intent:
        action = release_plan(state, intent, failed={Action.DELETE})

        assert action is not Action.DELETE
