"""Finds the workspace: the nearest directory with a job file, from the working directory upwards.

A job file names host directories and secrets, so one that another user may have put above the
working directory is an error, as with git's `safe.directory`. In the working directory itself
whoever types the command has chosen it.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

from orchestrator.errors import UsageError

JOB_FILE = "pikaci.toml"


def find_workspace(start: Path, trusted: Container[int] | None = None) -> Path:
    """The first directory with a job file: `start`, or the nearest above it; else `start` itself.

    `start` is a path without links. Raises `UsageError` if the file that was found above `start`
    can be another user's: the file, its link and its directory must belong to the user ids in
    `trusted`, by default this user and root.
    """
    for directory in (start, *start.parents):
        file = directory / JOB_FILE
        if not os.path.lexists(file):
            continue
        if directory != start:
            _check_owner(file, _trusted() if trusted is None else trusted)
        return directory
    return start


def _trusted() -> set[int]:
    own = os.geteuid()
    invoker = os.environ.get("SUDO_UID", "")
    return {own, 0} | ({int(invoker)} if own == 0 and invoker.isdecimal() else set())


def _check_owner(file: Path, trusted: Container[int]) -> None:
    try:
        found = (file.lstat(), file.parent.stat(), *([file.stat()] if file.exists() else []))
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read: {error.strerror}",
            resolution="name the directory that the jobs need with --workspace",
        ) from None
    owners = [each.st_uid for each in found if each.st_uid not in trusted]
    if not owners:
        return
    raise UsageError(
        f"{file} is not used here, because it or its directory belongs to {_name(owners[0])}",
        resolution=f"if you trust it, use --workspace {file.parent}; otherwise --workspace .",
    )


def _name(uid: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user id {uid}"
