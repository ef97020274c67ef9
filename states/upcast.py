"""Old versions of events and notes, brought up to today's: one small pure function a step.

A step gets an entry of one type and version as plain JSON data, and returns it as the next version,
with its new `v` (or under another type). It never looks at a rule: what was recorded, happened.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

Data = dict[str, Any]

# By type and version, what makes the next version of it. An entry without `v` has version 1.
STEPS: dict[tuple[str, int], Callable[[Data], Data]] = {}


@functools.cache
def version_of(kind: type[msgspec.Struct]) -> int:
    """The version of a class of events or notes that this pikaci writes."""
    for field in msgspec.structs.fields(kind):
        if field.name == "v":
            return int(field.default)
    return 1


def upcast(data: Data) -> Data:
    """The entry as the newest version that there are steps to."""
    while step := STEPS.get((data["type"], data.get("v", 1))):
        data = step(data)
    return data
