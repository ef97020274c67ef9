"""Which effect of a job an incus command was for. The commands are made in `commands`."""

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
_RUNNER = "pikaci-incus-run"
_SCRIPTS = {"pikaci-ready": "ready", "pikaci-collect": "collect"}
_RUNNER_WORDS = {"cancel": "cancel", "follow": "run"}


def command_of(argv: Sequence[str]) -> str:
    """The command in short: `incus exec`."""
    return " ".join(argv[:2])


def effect_of(argv: Sequence[str]) -> str:
    """`create`, `start`, `ready`, `run`, `cancel`, `collect` or `delete`; else incus's own word."""
    verb = argv[1] if len(argv) > 1 else "incus"
    if verb == "exec" and "--" in argv:
        inner = argv[argv.index("--") + 1 :]
        if inner[:2] == ("sh", "-c") and len(inner) > 3:
            return _SCRIPTS.get(inner[3], verb)
        if inner[:1] == ("env",) and inner[-1].endswith(f"/{_RUNNER}"):
            return "run"
        if len(inner) > 1 and inner[0].endswith(f"/{_RUNNER}"):
            return _RUNNER_WORDS.get(inner[1], verb)
    return "pull" if verb == "file" else verb
