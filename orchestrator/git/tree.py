"""A tree as git sees it: its files, which of them are ignored, and changes since the commit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.git.isolated import Git
from orchestrator.git.process import refused
from orchestrator.git.repository import MAX_NAME, Repository, Unreadable

GITLINK = b"160000"
# After these warnings git continues with an incomplete tree. Not counted: a .gitignore that is a
# link, and a directory that has just been deleted, which git always skips.
_LEFT_OUT = re.compile(
    rb"warning: (could not open directory|unable to access) "
    rb"(?!.*: (Too many levels of symbolic links|No such file or directory)$)"
)

_INVALID = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)")  # a part that is empty, `.` or `..`


class Entry(NamedTuple):
    """A name that git lists. `mode` and `object` are empty for an untracked file.

    `nested`: a repository that the outer one does not track. `sparse`: left out by a sparse
    checkout.
    """

    name: bytes
    mode: bytes = b""
    object: bytes = b""
    nested: bool = False
    sparse: bool = False


@dataclass(frozen=True)
class Tree:
    """The part of git's work tree below `prefix`; in the workspace it is below `below`.

    Both are empty or end with a slash. All names here are relative to the workspace. `commit` is
    the commit that an outer repository records for this one, if any.
    """

    git: Git
    repository: Repository | None
    below: bytes = b""
    prefix: bytes = b""
    commit: bytes = b""
    told: list[str] = field(default_factory=list)

    def entries(self) -> list[Entry]:
        """All tracked files, and all untracked files that are not ignored.

        Git's warnings go to `told`. Raises `Unreadable` if git cannot read everything.
        """
        listed = self.git.run(
            "ls-files", "-z", "-t", "--stage", "--cached", "--others", "--exclude-standard",
            *self._pathspec(),
        )  # fmt: skip
        for line in listed.stderr.splitlines():
            if _LEFT_OUT.search(line):
                raise refused(self.git.tree, listed.stderr)
            if not line.startswith(b"ignoring "):  # an optional part of the index
                self.told.append(f"git: {ascii(line.decode('utf-8', 'replace'))[1:-1][:500]}")
        entries = []
        for line in filter(None, listed.stdout.split(b"\0")):
            # `? NAME`, or `H MODE OBJECT STAGE<tab>NAME`; `S` for what a sparse checkout leaves out
            if line.startswith(b"? "):
                head, name = b"", line[2:]
            else:
                head, _, name = line.partition(b"\t")
            if name.startswith(self.prefix):  # otherwise a submodule replaced the workspace
                entries.append(
                    Entry(
                        self._in_workspace(name),
                        head[2:8],
                        head[9:-2],
                        name.endswith(b"/"),
                        head.startswith(b"S"),
                    )
                )
        return entries

    def ignored(self) -> set[bytes]:
        """What git ignores; for a directory with only ignored content, just its name."""
        listed = self.git.run(
            "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory",
            *self._pathspec(),
        ).stdout.split(b"\0")  # fmt: skip
        return {
            self._in_workspace(name)
            for name in listed
            if name.startswith(self.prefix) and name != self.prefix
        }

    def not_ignored(self, names: set[bytes]) -> set[bytes]:
        """The names that no rule ignores."""
        if not names:
            return names
        # `./`, because git treats a name that begins with a colon as a pattern.
        asked = {b"./" + self.prefix + name[len(self.below) :]: name for name in names}
        ignored = self.git.run(
            "check-ignore", "-z", "--stdin", stdin=b"\0".join(asked), success=(0, 1)
        ).stdout
        return names - {asked[name] for name in ignored.split(b"\0") if name}

    def subject(self, commit: str) -> str:
        """The first line of the commit's message, cut to `MAX_NAME`; "" if it cannot be read."""
        # An object's name, so git takes it for nothing else.
        text = self.git.run("cat-file", "commit", commit, success=(0, 128)).stdout
        message = text.partition(b"\n\n")[2].lstrip(b"\n")
        return message.partition(b"\n")[0].decode("utf-8", "replace").strip()[:MAX_NAME]

    def changes(self, commit: str, links: list[bytes]) -> set[bytes]:
        """Tracked files whose names, modes or contents differ from the commit.

        Filters do not run: a file with one counts as changed, unless its times match the index.
        `links` are the submodules in the index. Their index entries are compared with the commit;
        their directories are not looked at.
        """
        changed: set[bytes] = set()
        if links:
            # Otherwise git would open the submodules' repositories.
            staged = self.git.run(
                "diff-index", "--cached", "--name-only", "-z", "--no-renames", commit,
                *self._pathspec(),
            ).stdout  # fmt: skip
            changed |= {self._in_workspace(name) for name in staged.split(b"\0") if name}
            self.git.forget([self.prefix + name[len(self.below) :] for name in links])
        self.git.check_out(commit)
        status = self.git.run(
            "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames",
            "--ignore-submodules=all", *self._pathspec(),
        ).stdout  # fmt: skip
        known = set(links)
        for line in filter(None, status.split(b"\0")):
            name = self._in_workspace(line[3:])
            if name not in known:
                changed.add(name)
        return changed

    def _pathspec(self) -> list[bytes]:
        return [b"--", b":(top,literal)" + self.prefix] if self.prefix else []

    def _in_workspace(self, name: bytes) -> bytes:
        """Convert a name in git's work tree to the name in the workspace.

        Raises `Unreadable` if it leaves the tree, as it can in a forged index.
        """
        inside = name[len(self.prefix) :].removesuffix(b"/")
        if _INVALID.search(inside):
            raise Unreadable(
                f"{self.git.tree}: git's index has an invalid path: {ascii(inside)[1:]}",
                resolution="remove the file `index` of the repository, then: git reset",
            )
        return self.below + inside
