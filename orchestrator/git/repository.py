"""Finds the git repository of a directory, and the commit that it has checked out.

This does not ask git: git loads the configuration of every repository that it opens, and many
settings name programs. So pikaci looks for `.git` as git does, and reads the few files that it
needs as plain data.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SnapshotError, UsageError

MAX_BYTES = 256 * 1024 * 1024  # per file; packed-refs is the largest that is read
REPAIR = "repair the repository: `git fsck` and `git status` say what is wrong"
MAX_NAME = 200  # characters of a name or a line that people read
_LINKS = 5  # symbolic refs in a row, the same limit as git's
_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Unreadable(SnapshotError, UsageError):
    """The repository cannot be read."""


class NotARepository(Unreadable):
    """There is a `.git`, but git does not accept it as a repository."""


@dataclass(frozen=True)
class Repository:
    """A repository with a work tree. All paths are absolute.

    `git_dir` has HEAD and the index; `common_dir` has refs, objects and configuration. They differ
    in a work tree made by `git worktree add`.
    """

    tree: Path
    git_dir: Path
    common_dir: Path

    def head(self) -> str | None:
        """The commit that is checked out; None before the first one.

        Raises `Unreadable` if HEAD cannot be resolved.
        """
        where = b"HEAD"
        for _ in range(_LINKS + 1):
            value = self._ref(where)
            if value is None:
                return None
            if _ID.fullmatch(value):
                return value.decode()
            where = _target(value)
            if not where:
                break
        raise Unreadable(
            f"{self.git_dir}: git's HEAD does not lead to a commit: {where.decode('latin-1')!a}",
            resolution=REPAIR,
        )

    def branch(self) -> str:
        """The name of the branch that is checked out, cut to `MAX_NAME`; "" if there is none."""
        name = _target(self._ref(b"HEAD") or b"")
        found = name.removeprefix(b"refs/heads/") if name.startswith(b"refs/heads/") else b""
        return found.decode("utf-8", "replace")[:MAX_NAME]

    def _ref(self, name: bytes) -> bytes | None:
        """The content of a ref: an object's id, or `ref: ` and another ref's name."""
        own = name == b"HEAD" or name.startswith((b"refs/bisect/", b"refs/worktree/"))
        base = self.git_dir if own else self.common_dir
        path = base / os.fsdecode(name)
        link = _symbolic_link(path)
        if link is not None:
            return b"ref: " + link
        try:
            loose = read(path)
        except IsADirectoryError:  # left behind by refs below it
            loose = None
        if loose is not None:
            return loose.strip()
        packed = read(self.common_dir / "packed-refs") or b""
        found = re.search(rb"^([0-9a-f]+) " + re.escape(name) + rb"$", packed, re.MULTILINE)
        if found:
            return found[1]
        if (self.common_dir / "reftable").exists():
            raise Unreadable(
                f"{self.common_dir}: its refs are in a reftable, which pikaci does not read",
                resolution="git refs migrate --ref-format=files",
            )
        return None


def find_repository(directory: Path) -> Repository | None:
    """The repository that contains an absolute directory, or None.

    Like git, this looks at the directory and its parents on the same file system. Raises
    `Unreadable` for a repository that cannot be read.
    """
    device = directory.stat().st_dev
    for tree in (directory, *directory.parents):
        if tree.stat().st_dev != device:
            return None
        if (found := repository_at(tree)) is not None:
            return found
        if _is_git_dir(tree):
            return None  # a bare repository, or a directory in one: it has no work tree
    return None


def repository_at(tree: Path) -> Repository | None:
    """The repository whose `.git` is in this directory, or None if there is no `.git`.

    An empty `.git` directory counts as none. Raises `NotARepository` for any other `.git` that is
    not a repository, and `Unreadable`.
    """
    dot_git = tree / ".git"
    try:
        mode = dot_git.lstat().st_mode
        if stat.S_ISLNK(mode):
            mode = dot_git.stat().st_mode
    except FileNotFoundError:
        if dot_git.is_symlink():
            raise _no_repository(
                dot_git, f"it is a link to {_shown(os.readlink(dot_git))}"
            ) from None
        return None
    except NotADirectoryError:
        return None
    except OSError as error:
        raise _no_repository(dot_git, str(error.strerror)) from None
    if stat.S_ISDIR(mode):
        git_dir, says = dot_git, "it lacks HEAD, objects or refs"
        if not any(dot_git.iterdir()):
            return None
    elif stat.S_ISREG(mode):
        content = read(dot_git) or b""
        if not content.startswith(b"gitdir: "):
            raise _no_repository(dot_git, "invalid gitfile format")
        target = os.fsdecode(content[len(b"gitdir: ") :].rstrip(b"\r\n"))
        says = f"not a git repository: {_shown(target)}"
        if "\0" in target:
            raise _no_repository(dot_git, says)
        git_dir = Path(os.path.normpath(tree / target)) if target else dot_git
    else:
        raise _no_repository(dot_git, "it is neither a directory nor a file")
    try:
        if not _is_git_dir(git_dir):
            raise _no_repository(dot_git, says)
    except OSError as error:
        raise _no_repository(dot_git, str(error)) from None
    return Repository(tree, git_dir, _common_dir(git_dir))


def read(path: Path) -> bytes | None:
    """The bytes of one of git's files, None if it does not exist. Never blocks on a pipe.

    Raises `Unreadable` if it is not a regular file or too large, and `IsADirectoryError`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}", resolution=REPAIR) from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(str(path))
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            what = "larger than 256 MiB" if stat.S_ISREG(status.st_mode) else "not a regular file"
            raise Unreadable(
                f"{path}: git's file is {what}",
                resolution=REPAIR,
            )
        return file.read(MAX_BYTES)


def _is_git_dir(path: Path) -> bool:
    """Whether this is a git directory, by git's own criteria: HEAD, objects and refs."""
    head = path / "HEAD"
    if not os.path.lexists(head):
        return False
    common = _common_dir(path)
    if not all((common / name).is_dir() for name in ("objects", "refs")):
        return False
    if _symbolic_link(head) is not None:
        return True
    try:
        content = read(head) or b""
    except IsADirectoryError:
        return False
    return bool(_ID.match(content) or _target(content))


def _common_dir(git_dir: Path) -> Path:
    content = read(git_dir / "commondir")
    if content is None:
        return git_dir
    return Path(
        os.path.normpath(git_dir / os.fsdecode(content.rstrip(b"\r\n").replace(b"\0", b"")))
    )


def _symbolic_link(path: Path) -> bytes | None:
    """The ref that a symbolic link stands for; very old repositories use links."""
    if not path.is_symlink():
        return None
    target = os.fsencode(os.readlink(path))
    return target if _target(b"ref: " + target) else None


def _target(value: bytes) -> bytes:
    """The name after `ref: `; empty if there is none, or it leads out of the repository."""
    name = value[len(b"ref:") :].strip() if value.startswith(b"ref:") else b""
    parts = name.split(b"/")
    safe = b"\0" not in name and not {b"", b".", b".."} & set(parts)
    return name if safe and parts[0] == b"refs" and len(parts) > 1 else b""


def _no_repository(dot_git: Path, says: str) -> NotARepository:
    return NotARepository(
        f"{dot_git}: git cannot read this repository",
        details=f"fatal: not a git repository: {says}",
        resolution="repair it, or remove this .git to use the tree without a repository",
    )


def _shown(text: str) -> str:
    return ascii(text[:200])
