"""The names of a job's effects in traces."""

from __future__ import annotations

from collections.abc import Sequence

from states.lifecycle import State

# The effect that leads out of a state.
OF_STATE = {
    State.SUBMITTED: "reset",
    State.ARTIFACTS_RESET: "create",
    State.DEVICES_CONFIGURED: "ready",
    State.INSTANCE_READY: "run",
    State.RUNNING: "run",
    State.PUBLISHING: "publish",
    State.CANCELLING: "cancel",
}
# The call of a person's shell in the guest: nothing waits for it.
SHELL = "shell"
# It only reads from Incus's API.
QUERY = "query"


def command_of(argv: Sequence[str]) -> str:
    """The command in short: `incus exec`."""
    return " ".join(argv[:2])
