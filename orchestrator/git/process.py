"""Git as a process, with an environment and git directories of pikaci's making."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import SnapshotError
from orchestrator.git.repository import REPAIR, Unreadable

GIT_SECS = 120
_SHOWN = 2000  # characters of what git says
_OURS = {
    "core.attributesfile": "/dev/null",
    "core.bare": "false",
    "core.fsmonitor": "false",
    "core.hookspath": "/dev/null",
    "core.untrackedcache": "false",
}


def run_git(
    args: Sequence[str | bytes],
    *,
    env: Mapping[str, str],
    cwd: Path,
    where: Path,
    stdin: bytes = b"",
    success: tuple[int, ...] = (0,),
) -> subprocess.CompletedProcess[bytes]:
    try:
        done = subprocess.run(
            ["git", *args], cwd=cwd, input=stdin, capture_output=True, timeout=GIT_SECS, env=env
        )
    except FileNotFoundError:
        raise SnapshotError(
            "there is no command git, which says what belongs to the workspace",
            resolution="apt-get install git",
        ) from None
    except subprocess.TimeoutExpired:
        raise SnapshotError(
            f"{where}: git did not end within {GIT_SECS} s",
            resolution="look for a pipe or a device in the place of one of git's files:"
            " `find . -type p`",
        ) from None
    if done.returncode not in success:
        raise refused(where, done.stderr)
    return done


def refused(where: Path, stderr: bytes) -> Unreadable:
    """The error for what git cannot read, in git's words."""
    return Unreadable(
        f"{where}: git cannot read this repository",
        details=stderr.decode("utf-8", "replace").strip()[:_SHOWN],
        resolution=REPAIR,
    )


def make_git_dir(git_dir: Path, settings: dict[str, str]) -> None:
    """Make an empty git directory that is configured by these settings alone."""
    for name in ("objects", "refs", "info"):
        (git_dir / name).mkdir(parents=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/none\n")
    with open(git_dir / "config", "wb") as file:
        for key, value in (settings | _OURS).items():
            section, _, name = key.partition(".")
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            file.write(os.fsencode(f'[{section}]\n{name} = "{escaped}"\n'))


def git_environment(workspace: Path) -> dict[str, str]:
    """The user's environment without git's variables, and without programs of the workspace."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    path = [
        directory
        for directory in os.environ.get("PATH", os.defpath).split(os.pathsep)
        if os.path.isabs(directory)
        and not Path(os.path.realpath(directory)).is_relative_to(workspace)
    ]
    return kept | {
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        "PATH": os.pathsep.join(path),
    }
