"""Where pikaci keeps things on the host."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.incus import Incus
from orchestrator.plan import Host
from orchestrator.queue import Capacity

QUEUE_JOBS = 10_000


def default_capacity() -> Capacity:
    """As many jobs as there are processors, at most 4."""
    return Capacity(jobs=min(os.cpu_count() or 1, 4))


def user_state_dir() -> Path:
    """The user's state directory for pikaci (XDG_STATE_HOME, or ~/.local/state)."""
    base = os.environ.get("XDG_STATE_HOME") or ""
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "pikaci"


def default_state_root(workspace: Path) -> Path:
    """One root a workspace, outside of it: `git clean -fdx` must not take the journal."""
    real = str(workspace.resolve())
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:12]
    # Short, as a socket's path below it has to fit into 100 bytes.
    name = "".join(c for c in Path(real).name if c.isalnum() or c in "._-")[:24]
    return user_state_dir() / f"{name or 'root'}-{digest}"


@dataclass(frozen=True)
class StateRoot:
    """The layout of one state root. Nothing is made until `make`."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite3"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    def attempt_dir(self, job: str, attempt: int) -> Path:
        """Where the log, the result and the artifacts of one attempt go."""
        return self.path / "jobs" / job / f"attempt-{attempt}"

    def make(self) -> None:
        """Create the root, private to the user. `UsageError` when that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            self.snapshots.mkdir(exist_ok=True, mode=0o700)
            self.locks.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be a state root: {error.strerror}",
                resolution="name another with --state-root or PIKACI_STATE_ROOT",
            ) from None


@dataclass(frozen=True)
class Settings:
    """How an orchestrator is set up.

    Jobs see `workspace` when their submitter names no other; the state root is its own by
    default. `capacity` is what jobs may take at once, and `queue_jobs` how many may wait.
    `keep_secs` is how long the guest of a job that did not pass is kept, None for not at all.
    Jobs may mount what is below a directory of `allow_mounts`, or, with None, whatever gives no
    control over the host.
    """

    workspace: Path
    state_root: Path | None = None
    capacity: Capacity = field(default_factory=default_capacity)
    queue_jobs: int = QUEUE_JOBS
    host: Host = field(default_factory=Host)
    keep_secs: float | None = None
    allow_mounts: tuple[Path, ...] | None = None

    def __post_init__(self) -> None:
        # A program may change its directory, and may have given text.
        object.__setattr__(self, "workspace", Path(self.workspace).absolute())
        if self.state_root is not None:
            object.__setattr__(self, "state_root", Path(self.state_root).absolute())

    @property
    def root(self) -> StateRoot:
        """The state root that is meant."""
        return StateRoot(self.state_root or default_state_root(self.workspace))


def open_incus(host: Host | None = None) -> Incus:
    """The daemon that jobs run on, with a client configuration of our own."""
    host = host or Host()
    return Incus(user_state_dir() / "incus", project=host.project, remote=host.remote)
