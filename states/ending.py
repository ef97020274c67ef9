"""How a job ends, and what becomes of its instance: decided here, performed elsewhere.

`end_plan` is asked again and again: it names one thing to do, whoever drives the job does it and
says what came of it, until there is nothing more to do. Recovery, the reaper and the job's own
task ask the same function, so an instance is let go in one way.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from states.lease import LeaseState
from states.lifecycle import TERMINAL, State


class Intent(enum.IntEnum):
    """What is wanted of a job. It only rises.

    `run`: it lives to its own end. `cancel`: it is ended, with a grace period. `cancel_now`: it is
    ended at once, and what would take long is left to the next start. `detach`: it goes on without
    this process.
    """

    RUN = 0
    CANCEL = 1
    CANCEL_NOW = 2
    DETACH = 3


class Action(enum.Enum):
    """One thing to do, to end a job or to let its instance go."""

    REQUEST = "write that the job is to be cancelled"
    KILL = "have the runner kill the command, and save what it left"
    CONFIRM = "write that the job is cancelled: its command is dead"
    RELEASE = "write that the lease has ended: nothing was ever asked for"
    KEEP = "write that the instance stays for debugging"
    DELETE = "delete the instance"
    OUTLAST = "wait until an unanswered create cannot make the instance any more"
    LEAVE = "do nothing more: the rest is the next start's"
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
    failed: Collection[Action] = (),
) -> Action:
    """What to do next with a job that is to end, or has ended, and with its instance.

    `before` is the state that a `cancelling` job was in when its end was asked for. `lease` is that
    of its current instance, None where there is none. `keep`: the instance stays for debugging.
    `failed` are the actions that this process has tried, and that did not succeed: none is named
    twice.
    """
    if intent is Intent.DETACH:
        return Action.LEAVE
    if state in TERMINAL:
        return release_plan(lease, intent, keep=keep, failed=failed)
    if state is not State.CANCELLING:
        return Action.REQUEST
    if lease not in _MAY_BE_THERE:
        # Absent counts as dead: nobody has started a runner in an instance whose create was never
        # answered.
        return Action.CONFIRM
    if lease is LeaseState.MADE and before in _RUNS and Action.KILL not in failed:
        return Action.KILL
    # Not known to be dead, it is not said to be.
    return Action.DELETE if Action.DELETE not in failed else Action.LEAVE


def release_plan(
    lease: LeaseState | None,
    intent: Intent,
    *,
    keep: bool = False,
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
        case LeaseState.ABSENT:
            return Action.OUTLAST if intent < Intent.CANCEL_NOW else Action.LEAVE
    return Action.DELETE if Action.DELETE not in failed else Action.LEAVE
