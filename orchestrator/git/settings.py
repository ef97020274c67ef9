"""Reads the few git settings about files that are plain data.

Git parses a repository's configuration from stdin, like any file, without loading it. Included
files are not read: they may be anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import SnapshotError
from orchestrator.git.process import git_environment, make_git_dir, run_git
from orchestrator.git.repository import REPAIR, NotARepository, Repository, Unreadable, read

# Settings for comparing files with the index. None of them can name a program.
_KEPT = frozenset(
    "core." + name
    for name in (
        "autocrlf", "checkstat", "eol", "filemode", "ignorecase", "precomposeunicode",
        "sparsecheckout", "symlinks", "trustctime",
    )
)  # fmt: skip
# Extensions of the repository format that do not affect what is read here. All others are passed to
# git, which refuses unknown ones.
_HARMLESS = frozenset(
    "extensions." + name
    for name in (
        "compatobjectformat", "noop", "noop-v1", "partialclone", "preciousobjects",
        "relativeworktrees", "submodulepathconfig", "worktreeconfig",
    )
)  # fmt: skip
_EXTENSION = re.compile(r"extensions\.[a-z][a-z0-9-]*")


class UserSettings:
    """The environment that git runs in, and the user's own settings, which apply to every tree.

    They come from `~/.gitconfig` and the like, never from a repository.
    """

    def __init__(self, workspace: Path, scratch: Path) -> None:
        self.environment = git_environment(workspace)
        git_dir = scratch / "user"
        make_git_dir(git_dir, {})
        try:
            listed = run_git(
                ["config", "--list", "--includes", "-z"],
                env=self.environment | {"GIT_DIR": str(git_dir)},
                cwd=scratch,
                where=git_dir,
            )
        except Unreadable as error:
            raise SnapshotError(
                "git cannot read your own configuration",
                details=error.details,
                resolution="`git config --global --list` says what is wrong",
            ) from None
        settings = _parse(listed.stdout)
        self.kept = {key: value for key, value in settings.items() if key in _KEPT}
        home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        named = os.path.expanduser(settings.get("core.excludesfile", f"{home}/git/ignore"))
        self.excludes = Path(named) if named and os.access(named, os.R_OK) else None


def settings_of(repository: Repository, env: Mapping[str, str], scratch: Path) -> Mapping[str, str]:
    """The settings in the repository's own files, without included files."""
    settings = _read_settings(repository.common_dir / "config", env, scratch)
    if repository.git_dir != repository.common_dir:
        # As in git: these two apply only to the main work tree.
        settings.pop("core.worktree", None)
        settings.pop("core.bare", None)
    if _is_true(settings.get("extensions.worktreeconfig", "false")):
        settings |= _read_settings(repository.git_dir / "config.worktree", env, scratch)
    if _is_true(settings.get("core.bare", "false")):
        raise NotARepository(
            f"{repository.git_dir}: this repository has no work tree: core.bare is set",
            resolution="name the directory of a work tree: `git worktree list` shows them",
        )
    if "core.worktree" in settings:
        named = os.path.realpath(repository.git_dir / settings["core.worktree"])
        if named != os.path.realpath(repository.tree):
            raise NotARepository(
                f"{repository.git_dir}: this repository's work tree is elsewhere",
                details=f"core.worktree: {named!a}",
                resolution="name that directory as the workspace, or unset core.worktree",
            )
    for key in settings:
        if key.startswith("extensions.") and not _EXTENSION.fullmatch(key):
            raise Unreadable(
                f"{repository.git_dir}: git cannot read this repository",
                details=f"fatal: unknown repository extension found: {key!a}",
                resolution="use a git that knows it, or remove it from the configuration",
            )
    return settings


def _read_settings(path: Path, env: Mapping[str, str], scratch: Path) -> dict[str, str]:
    try:
        content = read(path)
    except IsADirectoryError:
        raise Unreadable(f"{path}: git's file is a directory", resolution=REPAIR) from None
    if not content:
        return {}
    listed = run_git(
        ["config", "--file", "-", "--no-includes", "--list", "-z"],
        env=env,
        cwd=scratch,
        where=path,
        stdin=content,
    )
    return _parse(listed.stdout)


def _parse(listed: bytes) -> dict[str, str]:
    """Parse the output of `git config --list -z`; the last value wins. No value means true."""
    settings = {}
    for line in filter(None, listed.split(b"\0")):
        key, found, value = line.partition(b"\n")
        settings[os.fsdecode(key)] = os.fsdecode(value) if found else "true"
    return settings


def is_kept(key: str) -> bool:
    if key.startswith("extensions."):
        return key not in _HARMLESS
    return key in _KEPT or key == "core.repositoryformatversion"


def _is_true(value: str) -> bool:
    return value.lower() in ("true", "yes", "on") or (value.isdecimal() and value.strip("0") != "")
