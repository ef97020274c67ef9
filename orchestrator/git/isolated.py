"""Git, run without any configuration of the workspace.

Git gets a git directory made by pikaci: empty, with only pikaci's configuration. The real
repository contributes its index, its objects, its list of ignored files and a few settings that are
plain data. None of these can name a program. Filters, hooks, fsmonitor, external diffs, includes
and everything else that git could run need not be turned off: git never sees their configuration.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from orchestrator.git.process import make_git_dir, run_git
from orchestrator.git.repository import REPAIR, Repository, Unreadable, read
from orchestrator.git.settings import UserSettings, is_kept, settings_of


class Git:
    """Git for one work tree, with or without a repository.

    `scratch` is the path of a private directory to create. Raises `Unreadable` if one of the
    repository's files cannot be read, and `NotARepository` if its work tree is elsewhere.
    """

    def __init__(
        self, tree: Path, repository: Repository | None, settings: UserSettings, scratch: Path
    ) -> None:
        self.tree = tree
        self._scratch = scratch
        self._git_dir = scratch / "git"
        scratch.mkdir()
        self._env = settings.environment | {
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": str(self._git_dir),
            "GIT_WORK_TREE": str(tree),
            "HOME": str(scratch),
            "XDG_CONFIG_HOME": str(scratch),
        }
        kept = dict(settings.kept)
        excludes = settings.excludes
        if repository is not None:
            theirs = settings_of(repository, self._env, scratch)
            kept |= {key: value for key, value in theirs.items() if is_kept(key)}
            if "core.excludesfile" in theirs:
                excludes = tree / os.path.expanduser(theirs["core.excludesfile"])
        kept["core.excludesfile"] = str(scratch / "excludes")
        make_git_dir(self._git_dir, kept)
        if excludes is not None:
            _copy_patterns(excludes, scratch / "excludes")
        if repository is not None:
            self._borrow(repository)

    def _borrow(self, repository: Repository) -> None:
        """Show git the repository's index, objects and list of ignored files."""
        index = repository.git_dir / "index"
        _check_is_file(index)
        self._env["GIT_INDEX_FILE"] = str(index)
        self._env["GIT_OBJECT_DIRECTORY"] = str(repository.common_dir / "objects")
        for shared in repository.git_dir.glob("sharedindex.*"):
            _check_is_file(shared)  # the larger part of a split index
            (self._git_dir / shared.name).symlink_to(shared)
        _copy_patterns(
            repository.common_dir / "info" / "exclude", self._git_dir / "info" / "exclude"
        )

    def run(
        self, *args: str | bytes, stdin: bytes = b"", success: tuple[int, ...] = (0,)
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git with these arguments. Paths are relative to the work tree.

        Raises `Unreadable` with git's message if the exit code is not in `success`.
        """
        return run_git(
            args,
            env=self._env,
            cwd=self._scratch,
            where=self.tree,
            stdin=stdin,
            success=success,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables that git runs with, apart from those that name directories or files."""
        return {
            key: value
            for key, value in self._env.items()
            if key not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
        }

    @property
    def objects(self) -> Path:
        """The directory of the repository's objects. `KeyError` without a repository."""
        return Path(self._env["GIT_OBJECT_DIRECTORY"])

    def put(self, name: str, content: bytes) -> None:
        """Write a file of git's own directory: one that the real repository also has, as data."""
        (self._git_dir / name).write_bytes(content)

    def check_out(self, commit: str) -> None:
        """Set git's HEAD to this commit."""
        self.put("HEAD", f"{commit}\n".encode())

    def forget(self, names: list[bytes]) -> None:
        """Use a copy of the index without these entries."""
        index = self._git_dir / "index"
        # Keep its times: git uses them to decide which entries to compare by content.
        shutil.copy2(self._env["GIT_INDEX_FILE"], index)
        self._env["GIT_INDEX_FILE"] = str(index)
        self.run("update-index", "--force-remove", "-z", "--stdin", stdin=b"\0".join(names) + b"\0")


def _check_is_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise Unreadable(f"{path}: git's file is not a regular file", resolution=REPAIR)


def _copy_patterns(source: Path, target: Path) -> None:
    try:
        target.write_bytes(read(source) or b"")
    except IsADirectoryError:
        pass  # git ignores it too
