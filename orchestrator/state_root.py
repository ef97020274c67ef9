"""Where pikaci keeps its data on the host, for one workspace."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError


def user_state_dir() -> Path:
    """The user's state directory for pikaci (XDG_STATE_HOME, or ~/.local/state).

    It need not exist, and a user without a home has one that cannot.
    """
    base = os.environ.get("XDG_STATE_HOME") or ""
    if not base.startswith("/"):
        home = os.path.expanduser("~")
        base = f"{home if home.startswith('/') else '/dev/null'}/.local/state"
    return Path(base) / "pikaci"


def default_state_root(workspace: Path) -> Path:
    """The root of a workspace, outside of it: `git clean -fdx` must not delete the journal."""
    real = str(workspace.resolve())
    digest = _hash(real)[:12]
    # Short: the path of a socket in it must fit into 100 bytes.
    name = "".join(c for c in Path(real).name if c.isalnum() or c in "._-")[:24]
    return user_state_dir() / f"{name or 'root'}-{digest}"


def _hash(path: Path | str) -> str:
    import hashlib  # OpenSSL takes 2 ms to load

    return hashlib.sha256(os.fsencode(path)).hexdigest()


@dataclass(frozen=True)
class StateRoot:
    """The layout of one state root. `make` creates it."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite3"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def indexes(self) -> Path:
        return self.path / "indexes"

    def index(self, workspace: Path) -> Path:
        """The file for what is known of a workspace's files."""
        return self.indexes / _hash(workspace)[:32]

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    @property
    def certificates(self) -> Path:
        """The authorities that guests are to trust."""
        return self.path / "certificates"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    def attempt_dir(self, job: str, attempt: int) -> Path:
        """The directory for the log, the result and the artifacts of one attempt."""
        return self.path / "jobs" / job / f"attempt-{attempt}"

    def make(self) -> None:
        """Create the root, private to the user. Raises `UsageError` if that fails."""
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
