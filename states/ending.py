"""How a job ends and what happens to its instance: decided here, performed elsewhere.

`end_plan` names one action at a time. The caller performs it, reports what came of it, and asks
again, until nothing is left to do. The job's own task, recovery and the reaper all ask here, so
there is only one way to release an instance.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from states.lease import LeaseState
from states.lifecycle import TERMINAL, State


class Intent(enum.IntEnum):
    """What should happen to a job. An intent only rises.

    `run`: let it run to its end. `cancel`: cancel it, with a grace period. `cancel_now`: kill it at
    once, and leave slow cleanup to the next start. `detach`: let it continue without this process.
    """

    RUN = 0
    CANCEL = 1
    CANCEL_NOW = 2
    DETACH = 3


class Action(enum.Enum):
    """One step in ending a job or releasing its instance."""

    REQUEST = "record that cancellation was requested"
    KILL = "have the runner kill the command, and collect what it left"
    CONFIRM = "record that the job is cancelled: its command is dead"
    RELEASE = "record that the lease has ended: no instance was ever requested"
    KEEP = "record that the instance is kept for debugging"
    HAND_OVER = "have Incus delete the instance by itself"
    DELETE = "delete the instance"
    OUTLAST = "wait until an unanswered create can no longer make the instance"
    LEAVE = "stop here: the next start does the rest"
    DONE = "nothing is left to do"


_RUNS = (State.INSTANCE_READY, State.RUNNING)
_MAY_BE_THERE = (LeaseState.ASKED, LeaseState.MADE, LeaseState.DELETING)


def end_plan(
    state: State,
    before: State,
    lease: LeaseState | None,
    intent: Intent,
    *,
    keep: bool = False,
    hand_over: bool = False,
    failed: Collection[Action] = (),
) -> Action:
    """What to do next with a job that should end, or has ended, and with its instance.

    `before` is the state in which a `cancelling` job was asked to cancel. `lease` is the lease of
    its current instance, None if it has none. `keep`: keep the instance for debugging. `hand_over`:
    do not wait for the delete, if the job has a result. `failed` are the actions that this process
    tried without success; none of these is tried again.
    """
    if intent is Intent.DETACH:
        return Action.LEAVE
    if state in TERMINAL:
        hand_over = hand_over and state is State.RESULT_COLLECTED
        return release_plan(lease, intent, keep=keep, hand_over=hand_over, failed=failed)
    if state is not State.CANCELLING:
        return Action.REQUEST
    if lease not in _MAY_BE_THERE:
        # Absent counts as dead: no runner was started in an instance whose create was never
        # answered.
        return Action.CONFIRM
    if lease is LeaseState.MADE and before in _RUNS and Action.KILL not in failed:
        return Action.KILL
    # Confirm only what is known to be dead.
    return Action.DELETE if Action.DELETE not in failed else Action.LEAVE


def release_plan(
    lease: LeaseState | None,
    intent: Intent,
    *,
    keep: bool = False,
    hand_over: bool = False,
    failed: Collection[Action] = (),
) -> Action:
    """What to do next with an instance that no job needs any more; arguments as in `end_plan`."""
    match lease:
        case None | LeaseState.GONE:
            return Action.DONE
        case LeaseState.INTENDED:
            return Action.RELEASE
        case LeaseState.KEPT if keep:
            return Action.DONE
        case LeaseState.MADE if keep:
            return Action.KEEP
        case LeaseState.MADE if hand_over and Action.HAND_OVER not in failed:
            return Action.HAND_OVER
        case LeaseState.HANDED_OVER:
            return Action.LEAVE
        case LeaseState.ABSENT:
            return Action.OUTLAST if intent < Intent.CANCEL_NOW else Action.LEAVE
    return Action.DELETE if Action.DELETE not in failed else Action.LEAVE
