"""The context in which the jobs of one process run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.attempt.id_map import IdRange
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.plan import Host
from orchestrator.host_paths import MountRule
from orchestrator.incus import Incus
from orchestrator.job.fail_fast import FailFast
from orchestrator.journal import Journal
from orchestrator.outputs.building import Building
from orchestrator.outputs.store import OutputStore
from orchestrator.snapshot.progress import Progress
from orchestrator.state_root import StateRoot
from states.graph import resolved
from states.job import Job
from states.spec import JobSpec


def ignore_log(job: str, chunk: bytes) -> None:
    """The `on_log` of a process that shows no logs."""


def ignore_progress(progress: Progress) -> None:
    """The `on_progress` of a process that shows none."""


@dataclass(frozen=True)
class Context:
    """What the jobs of one process share: the daemon, the journal, the directories, and settings.

    Jobs may mount directories below `allow_mounts`; None allows all that give no control over the
    host. `ids` is the range from which guests get their own id maps, None for no such maps.
    `on_log` is called with a job's id and each piece of its log, `on_progress` once a second while
    a snapshot is made. `keep_secs` is how long the guest of a job that did not pass is kept for
    debugging, None for not at all. `intent` is the intent for all jobs of this process.
    """

    root: StateRoot
    journal: Journal
    incus: Incus
    host: Host = field(default_factory=Host)
    allow_mounts: tuple[Path, ...] | None = None
    ids: IdRange | None = None
    keep_secs: float | None = None
    on_log: Callable[[str, bytes], None] = ignore_log
    on_progress: Callable[[Progress], None] = ignore_progress
    intent: IntentSwitch = field(default_factory=IntentSwitch)
    building: Building = field(init=False)
    fail_fast: FailFast = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "building", Building(self.root.outputs))
        object.__setattr__(self, "fail_fast", FailFast(self.journal))

    @property
    def outputs(self) -> OutputStore:
        """The outputs of the state root."""
        return OutputStore(self.root.outputs)

    def resolved(self, job: Job) -> JobSpec:
        """The job's spec, with values for the outputs that its current attempt uses."""
        assert job.spec is not None
        tree = self.outputs.tree
        return resolved(
            job.spec, {name: ref.fingerprint or str(tree(ref)) for name, ref in job.inputs.items()}
        )

    @property
    def mount_rule(self) -> MountRule:
        """Which directories of the host jobs may mount."""
        return MountRule((self.root.path,), self.allow_mounts)
