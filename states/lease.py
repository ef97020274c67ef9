"""The lease of an instance: the second machine. Everything that decides its steps is in this file.

An instance may exist because of us from the moment on at which we are about to ask for it, until
Incus says that there is none. The lease is written before the instance is asked for, so that
whoever comes later knows the name:

    intended -> asked -> made -> deleting -> gone

A create whose answer was never seen stays `asked`: it may still be carried out. When Incus says
that there is no such instance, the lease is `absent`, and only when it has been so for
`UNANSWERED_CREATE_SECS` nothing will appear any more. What appeared until then is deleted. An
answer that is an error is an answer: what it left, if anything, is deleted like any other.

    asked -> absent -> deleting

A guest that is kept for debugging is `kept`, until its deadline. In the journal stand the first
step (`lease_opened`), the answer (the job's `devices_configured`), and the end (`lease_ended`). A
process that takes over a lease does not know whether the create was asked for: it takes it that it
was.

`JOINT` says which states of a job and of its current instance's lease can occur together.
"""

from __future__ import annotations

import enum

from transitions import Machine

from states.errors import IllegalEvent
from states.lifecycle import State

# Measured on Incus 6.0.4: of the creates whose client was killed, some instances appeared after a
# second "not found", and none after 30 s.
UNANSWERED_CREATE_SECS = 30.0


class LeaseState(enum.StrEnum):
    """What is known of an instance of ours."""

    INTENDED = "intended"
    ASKED = "asked"
    MADE = "made"
    ABSENT = "absent"
    KEPT = "kept"
    DELETING = "deleting"
    GONE = "gone"


class LeaseEvent(enum.StrEnum):
    """What happens to a lease.

    `ask`: the create is given to Incus. `answer`: it was answered, well or not. `not_found`: Incus
    has no instance of this name. `outlast`: it has been absent for long enough. `keep`: it stays
    for debugging. `delete`: its deletion is asked for. `deleted`: Incus has deleted it.
    """

    ASK = "ask"
    ANSWER = "answer"
    NOT_FOUND = "not_found"
    OUTLAST = "outlast"
    KEEP = "keep"
    DELETE = "delete"
    DELETED = "deleted"


_S, _E = LeaseState, LeaseEvent

# (event; the states that it may come in; where it leads)
TABLE: tuple[tuple[LeaseEvent, tuple[LeaseState, ...], LeaseState], ...] = (
    (_E.ASK, (_S.INTENDED,), _S.ASKED),
    (_E.ANSWER, (_S.ASKED,), _S.MADE),
    (_E.NOT_FOUND, (_S.ASKED, _S.ABSENT), _S.ABSENT),
    (_E.NOT_FOUND, (_S.INTENDED, _S.DELETING), _S.GONE),
    (_E.OUTLAST, (_S.ABSENT,), _S.DELETING),
    (_E.KEEP, (_S.MADE,), _S.KEPT),
    (_E.DELETE, (_S.MADE, _S.KEPT, _S.DELETING), _S.DELETING),
    (_E.DELETED, (_S.ASKED, _S.ABSENT, _S.DELETING), _S.GONE),
)

MACHINE = Machine(
    model=None,
    states=LeaseState,
    initial=LeaseState.INTENDED,
    auto_transitions=False,
    transitions=[
        {"trigger": event.value, "source": list(sources), "dest": dest}
        for event, sources, dest in TABLE
    ],
)


def step(state: LeaseState, event: LeaseEvent) -> LeaseState:
    """The lease after the event; `IllegalEvent`, and nothing has changed, when there is none."""
    known = MACHINE.events.get(event.value)
    found = known.transitions.get(state.name) if known else None
    if not found:
        raise IllegalEvent(f"a lease that is {state.value} cannot take the event {event.value}")
    return LeaseState[str(found[0].dest)]


def taken_over(*, made: bool, kept: bool) -> LeaseState:
    """A lease that another process left, by what the journal says of it.

    `made`: the create is known to have been answered. `kept`: its guest stays for debugging.
    """
    if kept:
        return LeaseState.KEPT
    return LeaseState.MADE if made else LeaseState.ASKED


_NONE: frozenset[LeaseState | None] = frozenset({None})
_CREATING = frozenset({_S.INTENDED, _S.ASKED, _S.MADE, _S.ABSENT})
_LEAVING = frozenset({_S.DELETING, _S.GONE})
_ANY = frozenset({None, *LeaseState})

# The joint states: of a job, and of the lease of its current attempt's instance (None: there is
# none yet). A guest runs a command only under a lease that is `made`, and a job has its result only
# from such a guest; one that has ended is never about to ask for an instance.
JOINT: dict[State, frozenset[LeaseState | None]] = {
    State.NEW: _NONE,
    State.REJECTED: _NONE,
    State.SUBMITTED: _NONE,
    State.ARTIFACTS_RESET: _NONE | _CREATING | _LEAVING,
    State.DEVICES_CONFIGURED: frozenset({_S.MADE}) | _LEAVING,
    State.INSTANCE_READY: frozenset({_S.MADE}) | _LEAVING,
    State.RUNNING: frozenset({_S.MADE}) | _LEAVING,
    State.CANCELLING: _ANY - {_S.KEPT},
    State.RESULT_COLLECTED: frozenset({_S.MADE, _S.KEPT}) | _LEAVING,
    State.FAILED: _ANY,
    State.CANCELLED: _ANY,
}
