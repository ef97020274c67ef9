"""Runs git as a process, with an environment and git directories made by pikaci."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import SnapshotError
from orchestrator.git.repository import REPAIR, Unreadable

GIT_SECS = 120
CHECK_SECS = 0.2
SLOW_SECS = 3  # then look for a pipe that git may be blocked on
_OPENED = (b".gitattributes", b".gitignore", b"HEAD", b"commondir")
_SHOWN = 2000  # characters of git's message
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
    secs: float | None = None,
    check: Callable[[], None] = lambda: None,
) -> subprocess.CompletedProcess[bytes]:
    """Run git for at most `secs`, by default `GIT_SECS`. Errors name `where`.

    `check` is called each `CHECK_SECS`; if it raises, git is killed.
    Raises `Unreadable` with git's message if the exit code is not in `success`, and for a pipe that
    git is blocked on.
    """
    try:
        with _file(stdin) as given:
            git = subprocess.Popen(
                ["git", *args],
                cwd=cwd,
                env=env,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
    except FileNotFoundError:
        raise SnapshotError(
            "the command git is not installed; pikaci needs it to list the workspace's files",
            resolution="apt-get install git",
        ) from None
    with git:
        try:
            out, err = _output(git, where, secs or GIT_SECS, check)
        finally:
            git.kill()  # no effect if it has ended
    if git.returncode not in success:
        raise refused(where, err)
    return subprocess.CompletedProcess(git.args, git.returncode, out, err)


def _file(data: bytes) -> BinaryIO:
    """The bytes as a file in memory, to be read from its beginning.

    Not a pipe: `Popen.communicate` stops to write to it once one call has timed out.
    """
    file = os.fdopen(os.memfd_create("pikaci-git", os.MFD_CLOEXEC), "w+b")
    file.write(data)
    file.seek(0)
    return file


def _output(
    git: subprocess.Popen[bytes],
    where: Path,
    secs: float,
    check: Callable[[], None],
) -> tuple[bytes, bytes]:
    began = time.monotonic()
    looked = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            return git.communicate(timeout=CHECK_SECS)
        check()
        took = time.monotonic() - began
        if took > SLOW_SECS and not looked:
            looked = True
            if (pipe := _pipe_below(where)) is not None:
                raise Unreadable(
                    f"{os.fsdecode(pipe)!a}: git's file is not a regular file",
                    resolution="remove it",
                )
        if took > secs:
            raise SnapshotError(
                f"{where}: git did not end within {secs:g} s",
                resolution="find out what makes `git status` slow there",
            )


def _pipe_below(directory: Path) -> bytes | None:
    """A pipe with the name of one of git's files, which git may have opened."""
    todo = [os.fsencode(directory)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif entry.name in _OPENED and stat.S_ISFIFO(
                        entry.stat(follow_symlinks=False).st_mode
                    ):
                        return entry.path
        except OSError:
            continue  # git cannot be blocked on what cannot be read
    return None


def refused(where: Path, stderr: bytes) -> Unreadable:
    """The error for a repository that git cannot read, with git's message."""
    return Unreadable(
        f"{where}: git cannot read this repository",
        details=stderr.decode("utf-8", "replace").strip()[:_SHOWN],
        resolution=REPAIR,
    )


def make_git_dir(git_dir: Path, settings: dict[str, str]) -> None:
    """Create an empty git directory with only these settings."""
    for name in ("objects", "refs", "info"):
        (git_dir / name).mkdir(parents=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/none\n")
    with open(git_dir / "config", "wb") as file:
        for key, value in (settings | _OURS).items():
            section, _, name = key.partition(".")
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            file.write(os.fsencode(f'[{section}]\n{name} = "{escaped}"\n'))


def git_environment(workspace: Path) -> dict[str, str]:
    """The user's environment without git's variables, and without the workspace on PATH."""
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
