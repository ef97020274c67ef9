"""The incus command: effects are data, and one client performs them.

`Effect` says what to do. `Incus.perform` and `Incus.query` are the only ways to do it.
"""

from typing import TYPE_CHECKING

from states.lazy import lazy

if TYPE_CHECKING:
    from orchestrator.incus.client import Call, Incus, Into, to_sink
    from orchestrator.incus.effect import Deadline, Effect, Retry, Stdin, request, stdin_of
    from orchestrator.incus.host import LOCAL, Host
    from orchestrator.incus.link import Link
    from orchestrator.incus.process import Completed, Feed, Sink, Spawn, spawn_process

__all__ = [
    "LOCAL",
    "Call",
    "Completed",
    "Deadline",
    "Effect",
    "Feed",
    "Host",
    "Incus",
    "Into",
    "Link",
    "Retry",
    "Sink",
    "Spawn",
    "Stdin",
    "request",
    "spawn_process",
    "stdin_of",
    "to_sink",
]

# A plan names a host and has effects, and needs no trio.
_HOMES = {
    "orchestrator.incus.client": ("Call", "Incus", "Into", "to_sink"),
    "orchestrator.incus.effect": ("Deadline", "Effect", "Retry", "Stdin", "request", "stdin_of"),
    "orchestrator.incus.host": ("LOCAL", "Host"),
    "orchestrator.incus.link": ("Link",),
    "orchestrator.incus.process": ("Completed", "Feed", "Sink", "Spawn", "spawn_process"),
}


if not TYPE_CHECKING:  # to mypy every name would be one of ours
    __getattr__ = lazy(__name__, _HOMES)
