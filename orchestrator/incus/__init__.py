"""The incus command: effects are data, and one client performs them.

`Effect` says what to do. `Incus.perform` and `Incus.query` are the only ways to do it.
"""

from orchestrator.incus.client import Call, Incus, Into, to_sink
from orchestrator.incus.effect import Deadline, Effect, Retry, Stdin, request, stdin_of
from orchestrator.incus.process import Completed, Feed, Sink, Spawn, spawn_process

__all__ = [
    "Call",
    "Completed",
    "Deadline",
    "Effect",
    "Feed",
    "Incus",
    "Into",
    "Retry",
    "Sink",
    "Spawn",
    "Stdin",
    "request",
    "spawn_process",
    "stdin_of",
    "to_sink",
]
