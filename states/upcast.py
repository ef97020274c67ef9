"""Converts old versions of events and notes to today's: one small pure function per step.

A step takes an entry of one type and version as plain JSON data, and returns it as the next
version, with its new `v` (or under another type). It checks no rules: what was recorded, happened.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

Data = dict[str, Any]

_RUNNER = "pikaci-incus-run"
_SCRIPTS = {"pikaci-ready": "ready", "pikaci-collect": "collect"}
_RUNNER_WORDS = {"cancel": "cancel", "follow": "follow"}


def called_2(data: Data) -> Data:
    """Version 1 has no `effect`: derive it from the command."""
    return {**data, "effect": data.get("effect") or _effect_of(tuple(data["argv"])), "v": 2}


def _effect_of(argv: tuple[str, ...]) -> str:
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


# The step to the next version, by type and version. An entry without `v` has version 1.
STEPS: dict[tuple[str, int], Callable[[Data], Data]] = {
    ("called", 1): called_2,
}


@functools.cache
def version_of(kind: type[msgspec.Struct]) -> int:
    """The version that this pikaci writes of an event or note class."""
    for field in msgspec.structs.fields(kind):
        if field.name == "v" and field.required:
            return int(field.type.__metadata__[0].le)
    return 1


def upcast(data: Data) -> Data:
    """The entry, converted as far as there are steps."""
    while step := STEPS.get((data["type"], data.get("v", 1))):
        data = step(data)
    return data
