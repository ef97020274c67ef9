"""What traces call the effects of a job."""

from __future__ import annotations

from collections.abc import Sequence

from states.lifecycle import State

# What is done in a state, to leave it.
OF_STATE = {
    State.SUBMITTED: "reset",
    State.ARTIFACTS_RESET: "create",
    State.DEVICES_CONFIGURED: "start",
    State.INSTANCE_READY: "run",
    State.RUNNING: "run",
    State.CANCELLING: "cancel",
}


def command_of(argv: Sequence[str]) -> str:
    """The command in short: `incus exec`."""
    return " ".join(argv[:2])
