"""Runs jobs: trio tasks that await incus.

The names here are for programs that embed pikaci; docs/embed.md shows them in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from states.lazy import lazy
except ImportError as error:
    import states

    found = list(getattr(states, "__path__", ())) or [states.__file__]
    raise ImportError(
        f"{found[0]} hides pikaci's package `states`: rename it, or move it into a package of your"
        " own. If you do not import it, start Python with -P, or elsewhere",
        name="states",
    ) from error

if TYPE_CHECKING:
    from orchestrator.capacity import Capacity, WarmGuests
    from orchestrator.errors import UsageError
    from orchestrator.incus import Host
    from orchestrator.job.backlog import QueueFull
    from orchestrator.job.handle import JobHandle, RunHandle
    from orchestrator.job.submission import Request
    from orchestrator.orchestrator import Orchestrator, Statistics
    from orchestrator.service.remote import connect
    from orchestrator.settings import Settings
    from orchestrator.snapshot.snapshot import Snapshot
    from states.errors import PikaciError, SpecError
    from states.job import Job
    from states.outcome import Verdict
    from states.rules import check
    from states.spec import JobSpec

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
    "WarmGuests",
    "__version__",
    "check",
    "connect",
]

# The command line imports this package too, and starts without trio.
_HOMES = {
    "orchestrator.errors": ("UsageError",),
    "orchestrator.job.handle": ("JobHandle", "RunHandle"),
    "orchestrator.orchestrator": ("Orchestrator", "Statistics"),
    "orchestrator.incus": ("Host",),
    "orchestrator.capacity": ("Capacity", "WarmGuests"),
    "orchestrator.job.backlog": ("QueueFull",),
    "orchestrator.service.remote": ("connect",),
    "orchestrator.settings": ("Settings",),
    "orchestrator.snapshot.snapshot": ("Snapshot",),
    "orchestrator.job.submission": ("Request",),
    "states.errors": ("PikaciError", "SpecError"),
    "states.job": ("Job",),
    "states.outcome": ("Verdict",),
    "states.rules": ("check",),
    "states.spec": ("JobSpec",),
}


if TYPE_CHECKING:
    __version__: str
else:  # to mypy every name would be one of ours
    _public = lazy(__name__, _HOMES)

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("pikaci")
        return _public(name)


def __dir__() -> list[str]:
    return sorted(__all__)
