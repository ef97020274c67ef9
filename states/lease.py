"""The lease of an instance: the second machine. Everything that decides its steps is in this file.

An instance of ours may exist from the moment before we ask Incus for it until Incus confirms that
it is gone. The lease is written before the create call, so that after a crash the name is known:

    intended -> asked -> made -> deleting -> gone

A create call that was never answered leaves the lease `asked`: Incus may still carry it out. When
Incus says that there is no such instance, the lease is `absent`. After `UNANSWERED_CREATE_SECS` in
`absent` the instance can no longer appear; one that appeared in the meantime is deleted. An error
is an answer too: whatever the call left behind is deleted like any other instance.

    asked -> absent -> deleting

A process that does not wait for the delete has Incus do it: the lease is `handed_over`, and stays
open until a process sees that the instance is gone.

    made -> handed_over

A warm guest is made before its job: it has a lease without a job, and is `warm` once it has booted.
A job claims it, and it is that job's `made` instance from then on. No other job ever gets it.

    made -> warm -> made

A guest kept for debugging is `kept` until its deadline. The journal holds the first step
(`lease_opened`), the claim of a warm guest (`lease_claimed`), the answer (the job's
`devices_configured`, or the claim), and the end (`lease_ended`). A process that takes over a lease
does not know whether the create call was sent, and assumes that it was. It deletes the warm guests
of a dead one: nobody knows what happened to them meanwhile.

`JOINT` lists the states that a job and the lease of its current instance can have together.
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
    """What is known about an instance of ours."""

    INTENDED = "intended"
    ASKED = "asked"
    MADE = "made"
    WARM = "warm"
    ABSENT = "absent"
    KEPT = "kept"
    HANDED_OVER = "handed_over"
    DELETING = "deleting"
    GONE = "gone"


class LeaseEvent(enum.StrEnum):
    """What happens to a lease.

    `ask`: the create call is sent to Incus. `answer`: it succeeded or failed. `not_found`: Incus
    has no instance of this name. `outlast`: it has been absent for long enough. `boot`: its guest
    is ready, and has no job yet. `claim`: a job has it now. `keep`: it is kept for debugging.
    `hand_over`: Incus deletes it by itself. `delete`: its deletion is requested. `deleted`: Incus
    has deleted it.
    """

    ASK = "ask"
    ANSWER = "answer"
    NOT_FOUND = "not_found"
    OUTLAST = "outlast"
    BOOT = "boot"
    CLAIM = "claim"
    KEEP = "keep"
    HAND_OVER = "hand_over"
    DELETE = "delete"
    DELETED = "deleted"


_S, _E = LeaseState, LeaseEvent

# (event; source states; destination)
TABLE: tuple[tuple[LeaseEvent, tuple[LeaseState, ...], LeaseState], ...] = (
    (_E.ASK, (_S.INTENDED,), _S.ASKED),
    (_E.ANSWER, (_S.ASKED,), _S.MADE),
    (_E.NOT_FOUND, (_S.ASKED, _S.ABSENT), _S.ABSENT),
    (_E.NOT_FOUND, (_S.INTENDED, _S.DELETING), _S.GONE),
    (_E.OUTLAST, (_S.ABSENT,), _S.DELETING),
    (_E.BOOT, (_S.MADE,), _S.WARM),
    (_E.CLAIM, (_S.WARM,), _S.MADE),
    (_E.KEEP, (_S.MADE,), _S.KEPT),
    (_E.HAND_OVER, (_S.MADE,), _S.HANDED_OVER),
    (_E.DELETE, (_S.MADE, _S.WARM, _S.KEPT, _S.DELETING), _S.DELETING),
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
    """The lease's state after the event; `IllegalEvent` if the table has no such step."""
    known = MACHINE.events.get(event.value)
    found = known.transitions.get(state.name) if known else None
    if not found:
        raise IllegalEvent(f"a lease that is {state.value} cannot take the event {event.value}")
    return LeaseState[str(found[0].dest)]


def taken_over(*, made: bool, kept: bool) -> LeaseState:
    """The state of a lease that another process left, from what the journal says.

    `made`: the create call was answered; of a warm guest that is not known. `kept`: the guest is
    kept for debugging.
    """
    if kept:
        return LeaseState.KEPT
    return LeaseState.MADE if made else LeaseState.ASKED


_NONE: frozenset[LeaseState | None] = frozenset({None})
_CREATING = frozenset({_S.INTENDED, _S.ASKED, _S.MADE, _S.ABSENT})
_LEAVING = frozenset({_S.DELETING, _S.GONE})
_ANY = frozenset({None, *LeaseState}) - {_S.WARM, _S.HANDED_OVER}

# The joint states of a job and of the lease of its current attempt's instance (None: no lease yet).
# A guest runs a command only under a `made` lease, and a result comes only from such a guest. One
# that is `warm` has no job.
JOINT: dict[State, frozenset[LeaseState | None]] = {
    State.NEW: _NONE,
    State.REJECTED: _NONE,
    State.SUBMITTED: _NONE,
    State.ARTIFACTS_RESET: _NONE | _CREATING | _LEAVING,
    State.DEVICES_CONFIGURED: frozenset({_S.MADE}) | _LEAVING,
    State.INSTANCE_READY: frozenset({_S.MADE}) | _LEAVING,
    State.RUNNING: frozenset({_S.MADE}) | _LEAVING,
    State.PUBLISHING: frozenset({_S.MADE}) | _LEAVING,
    State.CANCELLING: _ANY - {_S.KEPT},
    State.RESULT_COLLECTED: frozenset({_S.MADE, _S.KEPT, _S.HANDED_OVER}) | _LEAVING,
    State.FAILED: _ANY,
    State.CANCELLED: _ANY,
    State.REUSED: _NONE,
    State.SKIPPED: _NONE,
}
