"""The life of a job. Everything that decides where an event leads stands in this file.

A job begins as `new`: nothing is known of it. It is submitted or rejected, and then passes
five states in a fixed order, each entered when one effect has been seen to be done:

    artifacts_reset -> devices_configured -> instance_ready -> running -> result_collected

Whatever the command did (passed, failed, ran too long), a job whose result lies on the host
ends in `result_collected`. A fault of the infrastructure ends it in `failed`, unless it came
before the command started and a retry is left: `retried` then leads back to `submitted`, and
the attempt number goes up. So does `restarted`, when the process that drove the job died while
it made the instance, or so long ago that the guest would end itself under the job; no retry is
used up by that. A job can be asked to cancel in every state that is not an end; it is then
`cancelling` until it is known to be dead.

`TABLE` is the one source. The transitions library holds it, the diagram in the docs is drawn
from it, and `step` is the one door: a legal event gives a new `Job`, any other raises
`IllegalEvent` and nothing has changed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from transitions import Machine

from states.errors import IllegalEvent
from states.events import Event, tag


class State(enum.StrEnum):
    """Where a job is in its life."""

    NEW = "new"
    SUBMITTED = "submitted"
    ARTIFACTS_RESET = "artifacts_reset"
    DEVICES_CONFIGURED = "devices_configured"
    INSTANCE_READY = "instance_ready"
    RUNNING = "running"
    RESULT_COLLECTED = "result_collected"
    CANCELLING = "cancelling"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.RESULT_COLLECTED, State.REJECTED, State.FAILED, State.CANCELLED})

_BEFORE_THE_COMMAND = (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED, State.INSTANCE_READY)
_UNFINISHED = (State.SUBMITTED, *_BEFORE_THE_COMMAND, State.RUNNING)

# (trigger, which is an event's tag; the states it may come in; where it leads)
TABLE: tuple[tuple[str, tuple[State, ...], State], ...] = (
    ("submitted", (State.NEW,), State.SUBMITTED),
    ("rejected", (State.NEW,), State.REJECTED),
    ("artifacts_reset", (State.SUBMITTED,), State.ARTIFACTS_RESET),
    ("devices_configured", (State.ARTIFACTS_RESET,), State.DEVICES_CONFIGURED),
    ("instance_ready", (State.DEVICES_CONFIGURED,), State.INSTANCE_READY),
    ("running", (State.INSTANCE_READY,), State.RUNNING),
    ("result_collected", (State.RUNNING,), State.RESULT_COLLECTED),
    ("retried", _BEFORE_THE_COMMAND, State.SUBMITTED),
    ("restarted", (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED), State.SUBMITTED),
    ("cancel_requested", _UNFINISHED, State.CANCELLING),
    ("cancelled", (State.CANCELLING,), State.CANCELLED),
    ("failed", _UNFINISHED, State.FAILED),
)


def build_machine(table: Iterable[tuple[str, tuple[State, ...], State]] = TABLE) -> Machine:
    """The table as a transitions machine: no model, no callbacks, no automatic transitions."""
    return Machine(
        model=None,
        states=State,
        initial=State.NEW,
        auto_transitions=False,
        transitions=[
            {"trigger": trigger, "source": list(sources), "dest": dest}
            for trigger, sources, dest in table
        ],
    )


MACHINE = build_machine()


def destination(state: State, event_type: type[Event]) -> State:
    """Where an event of this type leads from this state; `IllegalEvent` if nowhere."""
    trigger = tag(event_type)
    known = MACHINE.events.get(trigger)
    # Not Machine.get_transitions: that takes a missing source for "any".
    found = known.transitions.get(state.name) if known else None
    if not found:
        raise IllegalEvent(f"a job that is {state.value} cannot take the event {trigger}")
    return State[str(found[0].dest)]
