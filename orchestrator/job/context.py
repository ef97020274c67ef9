"""What the jobs of one process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.attempt.id_map import IdRange
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.plan import Host
from orchestrator.host_paths import MountRule
from orchestrator.incus import Incus
from orchestrator.journal import Journal
from orchestrator.state_root import StateRoot


def ignore_log(job: str, chunk: bytes) -> None:
    """The `on_log` of a process that shows no logs."""


@dataclass(frozen=True)
class Context:
    """What jobs need: the daemon, the journal, the directories, and settings.

    Jobs may mount what `allow_mounts` says, or, with None, whatever gives no control over the host.
    `ids` is the range in which guests get id maps of their own, None for no such maps.
    `on_log` is called with a job's id and each piece of its log. `keep_secs` is how long the guest
    of a job that did not pass is kept for debugging, None for not at all. `intent` is the intent
    for all jobs of this process.
    """

    root: StateRoot
    journal: Journal
    incus: Incus
    host: Host = field(default_factory=Host)
    allow_mounts: tuple[Path, ...] | None = None
    ids: IdRange | None = None
    keep_secs: float | None = None
    on_log: Callable[[str, bytes], None] = ignore_log
    intent: IntentSwitch = field(default_factory=IntentSwitch)

    @property
    def mount_rule(self) -> MountRule:
        """Which directories of the host jobs may mount."""
        return MountRule((self.root.path,), self.allow_mounts)
