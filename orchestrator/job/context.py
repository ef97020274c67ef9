"""The context in which the jobs of one process run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.attempt.id_map import IdRange, local_id_range
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.same_ids import Neighbours
from orchestrator.errors import UsageError
from orchestrator.host_paths import MountRule
from orchestrator.hosts import (
    HostChoice,
    Hosts,
    HostSettings,
    HostUnknown,
    LocalTrees,
    Members,
    OpenHost,
    Tree,
    Trees,
)
from orchestrator.image.store import Images
from orchestrator.incus import LOCAL, Host, Incus
from orchestrator.job.fail_fast import FailFast
from orchestrator.job.pool import Pool
from orchestrator.job.silent_hosts import SilentHosts
from orchestrator.journal import Journal
from orchestrator.outputs.building import Building
from orchestrator.outputs.store import OutputStore, directory_name
from orchestrator.snapshot.progress import Progress
from orchestrator.state_root import StateRoot
from states.events import OutputRef
from states.graph import resolved
from states.job import Job
from states.spec import JobSpec


def ignore_log(job: str, chunk: bytes) -> None:
    """The `on_log` of a process that shows no logs."""


def ignore_progress(progress: Progress) -> None:
    """The `on_progress` of a process that shows none."""


@dataclass(frozen=True)
class JobHost:
    """A host that jobs run on: how its Incus is reached, its trees, its images, its members.

    `members` is None where Incus is no cluster. `jobs` is the settings' word on how many jobs it
    may run at once, of a cluster each member.
    """

    host: Host
    incus: Incus
    trees: Trees
    images: Images
    members: Members | None = None
    neighbours: Neighbours = field(default_factory=Neighbours)
    jobs: int | None = None

    @property
    def limit(self) -> int | None:
        """How many jobs it may run at once; None for no limit, as a cluster's is its members'."""
        is_cluster = self.members is not None and self.members.is_cluster
        return None if is_cluster else self.jobs

    def reaching(self, member: str) -> Incus:
        """Its Incus, for calls that depend on this member of the cluster, "" for none."""
        return self.incus if self.members is None else self.members.during(self.incus, member)


@dataclass(frozen=True)
class Context:
    """What the jobs of one process share: the hosts, the journal, the directories, and settings.

    New jobs run on `host`, whose daemon is `incus`, or, as there is a choice, on one of the hosts
    with the names `others`. Jobs that others left, or that name their host, may be on any of
    `hosts`; without these there is only the one. Jobs may mount directories below `allow_mounts`;
    None allows all that give no control over the host. `ids` is the range from which guests on the
    local host get their own id maps, None for no such maps. `on_log` is called with a job's id and
    each piece of its log, `on_progress` once a second while a snapshot is made. `keep_secs` is how
    long the guest of a job that did not pass is kept for debugging if its spec does not say, None
    for not at all. Without `waits_for_delete` Incus deletes the guest of a job that has a result by
    itself, and this process may end before. `intent` is the intent for all jobs of this process.
    `pool` has warm guests for them, None for none.
    """

    root: StateRoot
    journal: Journal
    incus: Incus
    host: Host = field(default_factory=Host)
    hosts: Hosts | None = None
    others: tuple[str, ...] = ()
    allow_mounts: tuple[Path, ...] | None = None
    ids: IdRange | None = None
    keep_secs: float | None = None
    waits_for_delete: bool = True
    on_log: Callable[[str, bytes], None] = ignore_log
    on_progress: Callable[[Progress], None] = ignore_progress
    intent: IntentSwitch = field(default_factory=IntentSwitch)
    pool: Pool | None = None
    silent: SilentHosts = field(default_factory=SilentHosts)
    building: Building = field(init=False)
    fail_fast: FailFast = field(init=False)
    _at: dict[str, JobHost] = field(init=False, default_factory=dict)

    @classmethod
    def on(cls, hosts: Hosts, *names: str, **rest: Any) -> Context:
        """A context whose new jobs run on the hosts with these names; `rest` are other fields.

        `UsageError` if there is no such host.
        """
        first, *others = (hosts.at(name).host for name in dict.fromkeys(names))
        there = hosts.at(first.name)
        return cls(
            incus=there.incus,
            host=there.host,
            hosts=hosts,
            others=tuple(host.name for host in others),
            ids=local_id_range(LOCAL),
            **rest,
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "building", Building(self.root.outputs))
        object.__setattr__(self, "fail_fast", FailFast(self.journal))
        images = Images(self.incus)
        if self.hosts is None:
            here = JobHost(self.host, self.incus, LocalTrees(), images)
        else:
            there = self.hosts.at(self.host.name)
            _check_shared(there.settings, self.root)
            here = replace(_job_host(there), host=self.host, incus=self.incus, images=images)
        self._at[self.host.name] = here

    @property
    def here(self) -> JobHost:
        """The host of new jobs."""
        return self._at[self.host.name]

    def at(self, name: str) -> JobHost:
        """The host with this name, "" for the local one.

        `HostUnknown` if there is none, another `UsageError` if its settings cannot be used.
        """
        name = name or LOCAL
        if name not in self._at:
            if self.hosts is None:
                raise HostUnknown(
                    f"this process knows no host {name!r}, only {self.host.name}",
                    resolution="open the state root with the settings of the host",
                )
            there = self.hosts.at(name)
            _check_shared(there.settings, self.root)
            self._at[name] = _job_host(there)
        return self._at[name]

    def choice(self, names: Sequence[str] = ()) -> HostChoice:
        """The hosts of a submission: those with these names, without any those of the context.

        `UsageError` if one does not exist.
        """
        return HostChoice.named(names or (self.host.name, *self.others), self._find)

    def _find(self, name: str) -> Host:
        """The host with this name, which is not opened. Errors are those of `at`."""
        if name in self._at or self.hosts is None or name == LOCAL:
            return self.at(name).host
        settings = self.hosts.settings(name)
        _check_shared(settings, self.root)
        return settings.host(name)

    def limit(self, name: str) -> int | None:
        """How many jobs the host with this name may run at once; None for no limit of its own."""
        return self.at(name).limit

    @property
    def outputs(self) -> OutputStore:
        """The outputs of the state root."""
        return OutputStore(self.root.outputs)

    def resolved(self, job: Job) -> JobSpec:
        """The job's spec, with values for the outputs that its current attempt uses."""
        assert job.spec is not None
        place = self.at(job.host).trees.place
        return resolved(
            job.spec,
            {
                name: ref.fingerprint or place(self.output_tree(ref))
                for name, ref in job.inputs.items()
            },
        )

    def snapshot_tree(self, job: Job) -> Tree:
        """The tree of the snapshot that the job sees."""
        assert job.snapshot is not None
        return Tree(job.snapshot.hash, self.root.snapshots / job.snapshot.hash)

    def output_tree(self, ref: OutputRef) -> Tree:
        """The tree that is an output."""
        return Tree(directory_name(ref.key, ref.job), self.outputs.tree(ref))

    def mount_rule(self, host: Host) -> MountRule:
        """Which directories of the host jobs may mount."""
        return MountRule((self.root.path,), self.allow_mounts, host)


def _job_host(there: OpenHost) -> JobHost:
    jobs = there.settings.jobs if there.settings is not None else None
    return JobHost(
        there.host, there.incus, there.trees, Images(there.incus), there.members, jobs=jobs
    )


def _check_shared(settings: HostSettings | None, root: StateRoot) -> None:
    if settings is None or settings.ssh is not None or settings.shared is None:
        return
    if not root.path.is_relative_to(settings.shared):
        raise UsageError(
            f"the state root {root.path} is not below {settings.shared}, the directory that the"
            " members of the cluster share",
            resolution="name one below it with --state-root",
        )
