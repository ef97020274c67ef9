"""Runs jobs: trio tasks that await incus.

The names here are for programs that embed pikaci; docs/embed.md shows them in use.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.attempt.plan import Host
    from orchestrator.capacity import Capacity
    from orchestrator.errors import UsageError
    from orchestrator.job.backlog import QueueFull
    from orchestrator.job.handle import JobHandle, RunHandle
    from orchestrator.job.submission import Request
    from orchestrator.orchestrator import Orchestrator, Statistics
    from orchestrator.settings import Settings
    from orchestrator.snapshot.snapshot import Snapshot
    from states.errors import PikaciError, SpecError
    from states.job import Job
    from states.outcome import Verdict
    from states.spec import JobSpec

# The embedding program decides where the log goes, and so does `pikaci serve`.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "Capacity",
    "Host",
    "Job",
    "JobHandle",
    "JobSpec",
    "Orchestrator",
    "PikaciError",
    "QueueFull",
    "Request",
    "RunHandle",
    "Settings",
    "Snapshot",
    "SpecError",
    "Statistics",
    "UsageError",
    "Verdict",
]

_HOMES = {
    "orchestrator.errors": ("UsageError",),
    "orchestrator.job.handle": ("JobHandle", "RunHandle"),
    "orchestrator.orchestrator": ("Orchestrator", "Statistics"),
    "orchestrator.attempt.plan": ("Host",),
    "orchestrator.capacity": ("Capacity",),
    "orchestrator.job.backlog": ("QueueFull",),
    "orchestrator.settings": ("Settings",),
    "orchestrator.snapshot.snapshot": ("Snapshot",),
    "orchestrator.job.submission": ("Request",),
    "states.errors": ("PikaciError", "SpecError"),
    "states.job": ("Job",),
    "states.outcome": ("Verdict",),
    "states.spec": ("JobSpec",),
}


if not TYPE_CHECKING:  # to mypy every name would be one of ours

    def __getattr__(name: str) -> Any:
        # Lazy: the command line imports this package too, and starts without trio.
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
