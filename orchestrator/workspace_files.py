"""Which files of a workspace belong to it: what git does not ignore, and what a list adds.

Outside a repository the same rules hold, by an empty repository made for the question. Git is
asked with everything off by which a repository could run code.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UsageError
from states.errors import PikaciError

GIT_SECS = 120
_HARDENED = (
    "-c", "core.fsmonitor=false",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.quotePath=false",
    "-c", "safe.directory=*",
)  # fmt: skip


def workspace_files(
    workspace: Path, *, exclude: tuple[Path, ...], include: tuple[str, ...]
) -> list[bytes]:
    """The relative names of all files and links that a snapshot takes, sorted.

    `exclude` are directories that never belong; `include` are globs of ignored files that do.
    Raises `UsageError` for a socket, pipe or device that is not ignored, by name.
    """
    names: set[bytes] = set()
    outside = frozenset(os.fsencode(one.resolve()) for one in exclude)
    with tempfile.TemporaryDirectory(prefix="pikaci-git-") as scratch:
        _list(workspace, b"", Path(scratch), names, outside)
    for glob in include:
        names.update(_included(workspace, glob))
    excluded = [
        os.fsencode(path.relative_to(workspace))
        for path in (one.resolve() for one in exclude)
        if path.is_relative_to(workspace)
    ]
    return sorted(
        name
        for name in names
        if b".git" not in name.split(b"/")
        and not any(name == e or name.startswith(e + b"/") for e in excluded)
    )


def commit_of(workspace: Path, *, exclude: tuple[Path, ...] = ()) -> tuple[str | None, bool | None]:
    """The commit that is checked out, and whether the tree differs from it.

    (None, None) outside a repository; a repository without a commit is dirty. What lies in
    `exclude` makes no tree dirty.
    """
    if not _in_repository(workspace):
        return None, None
    head = _git(workspace, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    commit = head.stdout.decode().strip() or None
    root = workspace.resolve()
    outside = [
        f":(exclude,literal){one.relative_to(root)}"
        for one in (path.resolve() for path in exclude)
        if one.is_relative_to(root)
    ]
    status = _git(
        workspace, *_without_filters(workspace), "status", "--porcelain", "-z", "--", ".", *outside
    )
    return commit, commit is None or bool(status.stdout)


def _without_filters(workspace: Path) -> list[str]:
    """Options that turn off the filters of the repository's own configuration: each is a command.

    Those of the user's configuration (of git-lfs, say) stay.
    """
    named = _git(
        workspace,
        "config", "--local", "--includes", "--name-only", "-z",
        "--get-regexp", r"^filter\..*\.(clean|process)$",
        check=False,
    ).stdout.split(b"\0")  # fmt: skip
    return [
        option for name in sorted(set(named)) if name for option in ("-c", f"{os.fsdecode(name)}=")
    ]


def _list(
    root: Path, below: bytes, scratch: Path, names: set[bytes], outside: frozenset[bytes]
) -> None:
    """Add the files of the tree at `root`, whose names begin with `below` in the workspace."""
    git_dir = None if _in_repository(root) else _empty_repository(scratch)
    listed = _git(
        root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", git_dir=git_dir
    )
    for name in listed.stdout.split(b"\0"):
        if not name:
            continue
        path = os.path.join(os.fsencode(root), name)
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue  # tracked, and deleted in the tree
        if stat.S_ISDIR(mode):
            # A repository inside this one: git names it, and looks no further.
            inner = name.rstrip(b"/")
            _list(root / os.fsdecode(inner), below + inner + b"/", scratch, names, outside)
        else:
            names.add(below + name)
    _refuse_specials(root, git_dir, outside)


def _refuse_specials(root: Path, git_dir: Path | None, outside: frozenset[bytes]) -> None:
    """Git passes over sockets, pipes and devices in silence; a job would miss them."""
    ignored = {
        os.path.join(os.fsencode(root), name.rstrip(b"/"))
        for name in _git(
            root,
            "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory",
            git_dir=git_dir,
        ).stdout.split(b"\0")
    } | outside  # fmt: skip
    specials = list(_specials(os.fsencode(root), ignored))
    if not specials:
        return
    relative = [os.path.relpath(path, os.fsencode(root)) for path in specials]
    asked = _git(
        root, "check-ignore", "-z", "--stdin",
        git_dir=git_dir, stdin=b"\0".join(relative), check=False,
    )  # fmt: skip
    kept = sorted(set(relative) - set(asked.stdout.split(b"\0")))
    if kept:
        shown = ", ".join(ascii(os.fsdecode(name))[1:-1] for name in kept[:5])
        raise UsageError(
            f"{root}: not a file, directory or link: {shown}",
            resolution="remove it, or name it in .gitignore",
        )


def _specials(directory: bytes, ignored: set[bytes]) -> Iterator[bytes]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name == b".git" or entry.path in ignored or entry.is_symlink():
                continue
            if entry.is_dir():
                yield from _specials(entry.path, ignored)
            elif not entry.is_file():
                yield entry.path


def _included(workspace: Path, glob: str) -> Iterator[bytes]:
    if glob.startswith("/") or ".." in glob.split("/"):
        raise UsageError(
            f"snapshot.include: {glob!r} leaves the workspace",
            resolution="globs are relative to the workspace, without `..`",
        )
    try:
        found = list(workspace.glob(glob))
    except (ValueError, IndexError, NotImplementedError):
        raise UsageError(
            f"snapshot.include: {glob!r} is no glob",
            resolution="for example `dist/**` or `generated/*.py`",
        ) from None
    for path in found:
        if any((workspace / one).is_symlink() for one in path.relative_to(workspace).parents[:-1]):
            continue  # what lies behind a link may be anywhere
        below = path.rglob("*") if path.is_dir() and not path.is_symlink() else (path,)
        for one in below:
            if one.is_symlink() or one.is_file():
                yield os.fsencode(one.relative_to(workspace))


def _in_repository(directory: Path) -> bool:
    inside = _git(directory, "rev-parse", "--is-inside-work-tree", check=False)
    return inside.stdout.strip() == b"true"


def _empty_repository(scratch: Path) -> Path:
    git_dir = scratch / "empty"
    if not git_dir.exists():
        _git(scratch, "init", "--quiet", "--bare", str(git_dir))
    return git_dir


def _git(
    directory: Path,
    *args: str,
    git_dir: Path | None = None,
    stdin: bytes = b"",
    check: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    where = [f"--git-dir={git_dir}", f"--work-tree={directory}"] if git_dir else []
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *_HARDENED, *where, *args],
            cwd=directory,
            input=stdin,
            capture_output=True,
            timeout=GIT_SECS,
            env={**env, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise PikaciError(
            "there is no command git, which says what belongs to the workspace",
            resolution="apt-get install git",
        ) from None
    except subprocess.TimeoutExpired:
        raise PikaciError(f"git {args[0]} did not end within {GIT_SECS} s in {directory}") from None
    if check and done.returncode != 0:
        raise PikaciError(
            f"git {args[0]} failed in {directory}", details=done.stderr.decode("utf-8", "replace")
        )
    return done
