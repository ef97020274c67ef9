"""The life of a job. Everything that affects state transitions is in this file.

A job begins as `new`: nothing is known about it. It is submitted or rejected. A submitted job waits
for its inputs and for a slot. It ends in `reused` when the output that it would leave is there
already, and in `skipped` when a job that it needs did not pass. Otherwise it passes through five
states in a fixed order, and enters each when one effect is known to be done:

    artifacts_reset -> devices_configured -> instance_ready -> running -> result_collected

Whether the command passed, failed or timed out, a job whose result is on the host ends in
`result_collected`. In between, a job that passed and has an `output` is `publishing` it. An
infrastructure fault ends it in `failed`, unless the command had not started and a retry is left:
then `retried` leads back to `submitted`, with the next attempt number. A job that another version
of pikaci accepted, and that today's rules refuse before it has begun, ends in `failed` too.
`restarted` leads back as `retried` does, when the process that drove the job died while it made the
instance, or so long ago that the guest would end itself before the job is done; this uses up no
retry. `lost` leads back from every state of an attempt, when a cluster has lost the member with the
guest. A job can be cancelled in every state that is not terminal; it is `cancelling` until its
command is known to be dead.

`TABLE` is the single source. The transitions library is built from it, the diagram in the docs is
drawn from it, and `step` is the only way in: a legal event returns a new `Job`, any other raises
`IllegalEvent` and changes nothing.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from states.errors import IllegalEvent
from states.events import Event, tag

if TYPE_CHECKING:
    from transitions import Machine


class State(enum.StrEnum):
    """Where a job is in its life."""

    NEW = "new"
    SUBMITTED = "submitted"
    ARTIFACTS_RESET = "artifacts_reset"
    DEVICES_CONFIGURED = "devices_configured"
    INSTANCE_READY = "instance_ready"
    RUNNING = "running"
    PUBLISHING = "publishing"
    RESULT_COLLECTED = "result_collected"
    CANCELLING = "cancelling"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REUSED = "reused"
    SKIPPED = "skipped"


TERMINAL = frozenset(
    {
        State.RESULT_COLLECTED,
        State.REJECTED,
        State.FAILED,
        State.CANCELLED,
        State.REUSED,
        State.SKIPPED,
    }
)

_BEFORE_THE_COMMAND = (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED, State.INSTANCE_READY)
_ATTEMPT = (*_BEFORE_THE_COMMAND, State.RUNNING, State.PUBLISHING)
_UNFINISHED = (State.SUBMITTED, *_ATTEMPT)

# (trigger, which is an event's tag; source states; destination)
TABLE: tuple[tuple[str, tuple[State, ...], State], ...] = (
    ("submitted", (State.NEW,), State.SUBMITTED),
    ("rejected", (State.NEW,), State.REJECTED),
    ("reused", (State.SUBMITTED,), State.REUSED),
    ("skipped", (State.SUBMITTED,), State.SKIPPED),
    ("artifacts_reset", (State.SUBMITTED,), State.ARTIFACTS_RESET),
    ("devices_configured", (State.ARTIFACTS_RESET,), State.DEVICES_CONFIGURED),
    ("instance_ready", (State.DEVICES_CONFIGURED,), State.INSTANCE_READY),
    ("running", (State.INSTANCE_READY,), State.RUNNING),
    ("publishing", (State.RUNNING,), State.PUBLISHING),
    ("result_collected", (State.RUNNING, State.PUBLISHING), State.RESULT_COLLECTED),
    ("retried", _BEFORE_THE_COMMAND, State.SUBMITTED),
    ("restarted", (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED), State.SUBMITTED),
    ("lost", _ATTEMPT, State.SUBMITTED),
    ("cancel_requested", _UNFINISHED, State.CANCELLING),
    ("cancelled", (State.CANCELLING,), State.CANCELLED),
    ("failed", _UNFINISHED, State.FAILED),
)


def build_machine(table: Iterable[tuple[str, tuple[State, ...], State]] = TABLE) -> Machine:
    """The table as a transitions machine: no model, no callbacks, no automatic transitions."""
    from transitions import Machine

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


@functools.cache
def machine() -> Machine:
    """The machine of `TABLE`. It is made when the first job moves: a list of jobs starts faster."""
    return build_machine()


def destination(state: State, event_type: type[Event]) -> State:
    """The state that an event of this type leads to; `IllegalEvent` if there is none."""
    trigger = tag(event_type)
    known = machine().events.get(trigger)
    # Not Machine.get_transitions: it treats a missing source as "any".
    found = known.transitions.get(state.name) if known else None
    if not found:
        raise IllegalEvent(f"a job that is {state.value} cannot take the event {trigger}")
    return State[str(found[0].dest)]
