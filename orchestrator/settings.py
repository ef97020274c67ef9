"""How an orchestrator is set up: defaults and settings."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.capacity import Capacity, WarmGuests
from orchestrator.incus import Host, Incus
from orchestrator.state_root import StateRoot, default_state_root, user_state_dir

QUEUE_JOBS = 10_000


def default_capacity() -> Capacity:
    """One job per processor, at most 4."""
    return Capacity(jobs=min(os.cpu_count() or 1, 4))


@dataclass(frozen=True)
class Settings:
    """Settings of an orchestrator.

    `workspace` is the default workspace of jobs; `state_root` defaults to the one that belongs to
    it. Jobs run on `host`; with a name other than "local", that is a host of the user's settings.
    With the names `hosts`, a job runs on the first of these that has a free slot and can take it.
    `capacity` is what running jobs may use of each host in total, and `queue_jobs` how many jobs
    may be queued. `keep_secs` is how long the guest of a job that did not pass is kept, None for
    not at all. Jobs may mount directories below those in `allow_mounts`; with None, every directory
    that gives no control over the host. `warm` are the guests that are kept ready on each host
    before their jobs, None for none.
    """

    workspace: Path
    state_root: Path | None = None
    capacity: Capacity = field(default_factory=default_capacity)
    queue_jobs: int = QUEUE_JOBS
    host: Host = field(default_factory=Host)
    hosts: tuple[str, ...] = ()
    keep_secs: float | None = None
    allow_mounts: tuple[Path, ...] | None = None
    warm: WarmGuests | None = None

    def __post_init__(self) -> None:
        # The program may change its working directory later, or may have passed text.
        object.__setattr__(self, "workspace", Path(self.workspace).absolute())
        if self.state_root is not None:
            object.__setattr__(self, "state_root", Path(self.state_root).absolute())

    @property
    def root(self) -> StateRoot:
        """The state root in use."""
        return StateRoot(self.state_root or default_state_root(self.workspace))


def open_incus(host: Host | None = None, root: StateRoot | None = None) -> Incus:
    """The daemon that jobs run on, with pikaci's own client configuration.

    It is in the user's state directory. With a state `root` elsewhere it is in that: then nothing
    is written outside of it. A remote host needs the user's: the remotes and keys are there.
    """
    host = host or Host()
    ours = user_state_dir()
    own = root is not None and host.remote == "local" and not root.path.is_relative_to(ours)
    conf = (root.path if root is not None and own else ours) / "incus"
    return Incus(conf, project=host.project, remote=host.remote)


@contextmanager
def incus_to_look(host: Host, root: StateRoot) -> Iterator[Incus]:
    """An `open_incus` that does not create the state root, for commands that change nothing."""
    incus = open_incus(host, root)
    if root.path in incus.conf.parents and not root.path.is_dir():
        with tempfile.TemporaryDirectory(prefix="pikaci-incus-") as conf:
            yield Incus(Path(conf), project=host.project, remote=host.remote)
    else:
        yield incus
