"""Which files of a workspace go into a snapshot: those git does not ignore, plus a list.

The same rules hold outside a repository. A repository inside the workspace, submodule or not,
contributes its files by its own rules.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.git.history import History
from orchestrator.git.isolated import Git
from orchestrator.git.repository import (
    NotARepository,
    Repository,
    find_repository,
    repository_at,
)
from orchestrator.git.settings import UserSettings
from orchestrator.git.tree import GITLINK, Entry, Tree
from orchestrator.snapshot.git_dir import history_of
from orchestrator.snapshot.globs import Exclusion, included
from orchestrator.snapshot.index import Seen

MAX_DEPTH = 400  # nested directories; copying and deleting a tree is recursive
_SHOWN = 5


@dataclass(frozen=True)
class WorkspaceFiles:
    """The relative names of all files and links of a workspace, sorted, and their git state.

    `commit` is the commit that is checked out; `dirty` says whether the tree differs from it. Both
    are None outside a repository; before the first commit, only `commit` is None. `subject` is the
    first line of the commit's message, `branch` the branch that is checked out. `history` is what
    the snapshot's own `.git` is made from, if it gets one. `listed` are regular files among them,
    as they were when they were listed.
    """

    names: list[bytes]
    commit: str | None
    dirty: bool | None
    warnings: tuple[str, ...]
    history: History | None = None
    listed: Mapping[bytes, Seen] = field(default_factory=dict)
    subject: str = ""
    branch: str = ""


def workspace_files(
    workspace: Path,
    *,
    own: tuple[Path, ...] = (),
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    git: bool = False,
) -> WorkspaceFiles:
    """The files that go into a snapshot.

    `own` are directories of pikaci's, which stay out; `include` are globs of ignored files to add,
    `exclude` of files to leave out, whatever else holds for them. With `git`, the history is read
    too. Raises `UsageError` for a socket, pipe or device that is not left out, for an invalid glob,
    for a tree that is too deep, and with `git` for a workspace that is not the root of a repository
    with a commit; `SnapshotError` for a repository that cannot be read. Writes nothing to the
    workspace.
    """
    root = Path(os.path.realpath(workspace))
    excluded = tuple(
        os.fsencode(path.relative_to(root))
        for path in (Path(os.path.realpath(one)) for one in own)
        if path.is_relative_to(root) and path != root
    )
    left_out = Exclusion(exclude)
    with tempfile.TemporaryDirectory(prefix="pikaci-git-") as scratch:
        reader = _Reader(root, excluded, left_out, Path(scratch))
        reader.read()
        history = reader.history() if git else None
    unused = []
    for glob in include:
        added = set(included(root, glob))
        reader.names |= added
        if not added:
            unused.append(f"include: {glob!r}")
    names = sorted(
        name
        for name in reader.names
        if not (b".git" in name and b".git" in name.split(b"/"))
        and not (excluded and _below(name, excluded))
        and not left_out.takes(name)
    )
    unused += [f"exclude: {glob!r}" for glob in exclude if glob in left_out.unused]
    reader.warnings += [f"snapshot.{one} matches no file" for one in unused]
    dirty = reader.dirty if reader.in_repository else None
    warnings = tuple(reader.warnings)
    return WorkspaceFiles(
        names,
        reader.commit,
        dirty,
        warnings,
        history,
        reader.listed,
        subject=reader.subject,
        branch=reader.branch,
    )


@dataclass
class _Reader:
    """Reads a workspace and the trees inside it, one by one."""

    root: Path
    excluded: tuple[bytes, ...]
    left_out: Exclusion
    scratch: Path
    names: set[bytes] = field(default_factory=set)
    listed: dict[bytes, Seen] = field(default_factory=dict)
    in_repository: bool = False
    commit: str | None = None
    subject: str = ""
    branch: str = ""
    dirty: bool = False
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._settings = UserSettings(self.root, self.scratch)
        self._base = os.fsencode(self.root) + b"/"
        self._trees = 0
        self._directories: dict[bytes, bool] = {}
        self._empty: list[bytes] = []
        self._plain: list[bytes] = []
        self._outer: tuple[Tree, list[Entry]] | None = None

    def read(self) -> None:
        tree, entries = self._outer = self._first()
        trees = list(self._read(tree, entries))
        while trees:
            tree = trees.pop()
            trees.extend(self._read(tree, tree.entries()))
        if self._empty:
            self.warnings.append(
                f"submodules that are not initialised are empty: {_shown(self._empty)}"
            )
        if self._plain:
            self.warnings.append(
                "submodules without their own repository are treated as plain directories:"
                f" {_shown(self._plain)}"
            )

    def history(self) -> History:
        """The history of the workspace's commit, after `read`."""
        assert self._outer is not None
        tree, entries = self._outer
        left_out = frozenset(
            entry.name
            for entry in entries
            if entry.mode
            and (
                (entry.sparse and entry.name not in self.names)
                or (entry.mode == GITLINK and entry.name in self._empty)
                or (self.excluded and _below(entry.name, self.excluded))
                or self.left_out.takes(entry.name)
            )
        )
        return history_of(self.root, tree, self.commit, left_out)

    def _first(self) -> tuple[Tree, list[Entry]]:
        repository = find_repository(self.root)
        if repository is not None:
            inside = os.fsencode(self.root.relative_to(repository.tree))
            prefix = b"" if inside == b"." else inside + b"/"
            tree = Tree(self._git(repository.tree, repository), repository, prefix=prefix)
            entries = tree.entries()
            if entries or not prefix:
                self.in_repository = True
                self.commit = repository.head()
                self.branch = repository.branch()
                if self.commit is not None:
                    self.subject = tree.subject(self.commit)
                return tree, entries
            self.warnings.append(
                f"the repository {repository.tree} ignores all of {self.root}, which is treated"
                " as a separate tree without a commit"
            )
        tree = Tree(self._git(self.root, None), None)
        return tree, tree.entries()

    def _git(self, tree: Path, repository: Repository | None) -> Git:
        self._trees += 1
        return Git(tree, repository, self._settings, self.scratch / str(self._trees))

    def _read(self, tree: Tree, entries: list[Entry]) -> Iterator[Tree]:
        """Add the files of a tree; yields the trees inside it that have their own rules."""
        self.warnings.extend(tree.told[: max(0, _SHOWN - len(self.warnings))])
        inner: set[bytes] = set()
        for entry in entries:
            name = entry.name
            if self.excluded and _below(name, self.excluded):
                continue
            mode = self._mode(name)
            submodule = entry.mode == GITLINK
            self.dirty |= not entry.mode or (mode is None and not entry.sparse)
            if mode is None:
                if submodule and not entry.sparse:
                    self._empty.append(name)
            elif not stat.S_ISDIR(mode):
                self.names.add(name)
                self.dirty |= submodule
            elif submodule or entry.nested:
                inner.add(name)
                if (found := self._inner(entry)) is not None:
                    yield found
            else:
                self.dirty = True  # a directory replaced a file; git lists its files separately
        self._refuse_specials(tree, inner)
        if self.in_repository and not self.dirty:
            self.dirty = self._differs(tree, [one.name for one in entries if one.mode == GITLINK])

    def _inner(self, entry: Entry) -> Tree | None:
        """The tree of a submodule, or of a repository that the outer one does not track."""
        directory = self.root / os.fsdecode(entry.name)
        below = entry.name + b"/"
        try:
            if (repository := repository_at(directory)) is not None:
                git = self._git(directory, repository)
                return Tree(git, repository, below, commit=entry.object)
        except NotARepository:
            if not entry.mode:
                raise
        if all(name == ".git" for name in os.listdir(directory)):
            self._empty.append(entry.name)
            return None
        self._plain.append(entry.name)
        self.dirty = True
        return Tree(self._git(directory, None), None, below)

    def _mode(self, name: bytes) -> int | None:
        """The mode of the file with this name; None if there is none, or a parent is a link."""
        parent = name.rpartition(b"/")[0]
        if parent and not self._is_directory(parent):
            return None
        try:
            status = os.lstat(self._base + name)
        except (FileNotFoundError, NotADirectoryError):
            return None  # tracked, but deleted in the tree
        if stat.S_ISREG(status.st_mode):
            self.listed[name] = Seen.now(status)
        return status.st_mode

    def _is_directory(self, name: bytes) -> bool:
        """Whether no part of the name is a link: the index may name files behind one."""
        known = self._directories.get(name)
        if known is None:
            if name.count(b"/") >= MAX_DEPTH:
                raise UsageError(
                    f"{self.root}: more than {MAX_DEPTH} nested directories: {_shown([name])}",
                    resolution="name one of them in .gitignore",
                )
            mode = self._mode(name)
            known = self._directories[name] = mode is not None and stat.S_ISDIR(mode)
        return known

    def _differs(self, tree: Tree, links: list[bytes]) -> bool:
        if tree.repository is None:
            return False
        commit = tree.repository.head()
        if commit is None or (tree.commit and commit.encode() != tree.commit):
            return True
        return any(not _below(name, self.excluded) for name in tree.changes(commit, links))

    def _refuse_specials(self, tree: Tree, inner: set[bytes]) -> None:
        """Refuse sockets, pipes and devices: git skips them silently, and a job would miss them."""
        skipped = inner | set(self.excluded)
        if self._is_all_known(tree.below, skipped):
            return
        skipped |= tree.ignored()
        found = {
            name
            for name, entry in _entries(os.fsencode(self.root), tree.below, skipped)
            if not (entry.is_dir() or entry.is_file() or self.left_out.takes(name))
        }
        if kept := tree.not_ignored(found):
            raise UsageError(
                f"{self.root}: not a file, directory or link: {_shown(list(kept))}",
                resolution="remove it, or name it in .gitignore or `exclude` in [snapshot]",
            )

    def _is_all_known(self, below: bytes, skipped: set[bytes]) -> bool:
        """Whether a tree has no special file, and no directory without a file of the snapshot.

        Then it does not matter what git ignores there, which costs a process to ask.
        """
        return all(
            self._directories.get(name) if entry.is_dir() else entry.is_file()
            for name, entry in _entries(os.fsencode(self.root), below, skipped)
        )


def _below(name: bytes, directories: tuple[bytes, ...]) -> bool:
    return any(name == one or name.startswith(one + b"/") for one in directories)


def _shown(names: list[bytes]) -> str:
    listed = ", ".join(ascii(os.fsdecode(name))[1:-1][:200] for name in sorted(names)[:_SHOWN])
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN} more"


def _entries(
    root: bytes, below: bytes, skipped: set[bytes]
) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """All below a directory but links; each directory before what is in it."""
    todo = [below]
    while todo:
        directory = todo.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                name = directory + entry.name
                if entry.name == b".git" or name in skipped or entry.is_symlink():
                    continue
                yield name, entry
                if entry.is_dir():
                    todo.append(name + b"/")
