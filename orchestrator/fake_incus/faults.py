"""Injected faults: what goes wrong, with which call, and how often."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass


class Kind(enum.Enum):
    """What happens to a call with a fault."""

    FAIL = "nothing is done; the client gets an error"
    FAIL_DONE = "it is carried out, but the client gets an error"
    HANG = "it never ends, and nothing is done"
    BREAK = "its connection breaks after a while; what it started in a guest continues"
    FLOOD = "it prints without end"
    GARBLE = "it is carried out and succeeds, but prints something else"
    MUTE = "it is carried out and succeeds, but its output is lost"
    LATE = "it is carried out after a while, whether or not the client still waits"
    SPOIL = "the result file in the guest is not what the job left"
    NEVER_READY = "a mount does not appear in the guest"


@dataclass
class Fault:
    """`target` is a verb ("create") or a program in the guest ("pikaci-collect")."""

    kind: Kind
    target: str
    times: int
    name: str | None = None  # the instance, or any
    text: str = ""
    secs: float = 0.0
    exit_code: int = 1
    prints: bytes = b""


class Faults:
    """The pending faults, in order."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._pending.append(fault)

    def take(self, *kinds: Kind, targets: tuple[str, ...], name: str) -> Fault | None:
        """The next fault for this call, counted down by one; None if there is none."""
        for fault in self._pending:
            if (
                fault.kind in kinds
                and fault.target in targets
                and fault.name in (None, name)
                and fault.times > 0
            ):
                fault.times -= 1
                return fault
        return None

    def clear(self) -> None:
        """Drop all faults."""
        self._pending.clear()


def _foreign(result: bytes) -> bytes:
    return json.dumps({**json.loads(result), "nonce": "of-another-job"}).encode()


# Ways to spoil a result file: `{how: function of its content}`; None means no file.
SPOILS: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda result: None,
    "empty": lambda result: b"",
    "torn": lambda result: result[: len(result) // 2],
    "foreign": _foreign,
}
