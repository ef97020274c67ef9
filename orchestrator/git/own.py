"""Makes a repository of our own for a tree: a commit, its history and tags, and nothing else.

It has no hooks, no remotes, no branches, no other commits, and only the configuration below. Its
index is that of the commit, so `git status` shows how the tree differs from it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import SnapshotError
from orchestrator.git.history import History
from orchestrator.git.process import run_git
from orchestrator.git.repository import Unreadable

PACK_SECS = 900
_MAX_PACKS = 20  # then everything is packed anew
_SHA256 = 64  # digits of an object's name
_REFS = "packed-refs"


def write_repository(
    history: History, tree: Path, previous: Path | None, check: Callable[[], None]
) -> None:
    """Create `tree/.git`. `check` is called several times a second, and may raise.

    `previous` is a tree with a `.git` made by this function, or without one. Its objects are used
    again, as hard links, if the new history contains all of its history. Raises `Unreadable` if
    objects are missing or broken, and `SnapshotError` if packing takes more than `PACK_SECS`.
    """
    git_dir = tree / ".git"
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        (git_dir / name).mkdir(parents=True)
    (git_dir / "config").write_text(_configuration(history))
    (git_dir / "HEAD").write_text(history.commit + "\n")
    (git_dir / _REFS).write_bytes(_packed_refs(history))
    if history.shallow:
        (git_dir / "shallow").write_text("".join(f"{one}\n" for one in history.shallow))
    git = _Git(history, tree, check)
    known = git.link_objects(previous / ".git") if previous is not None else []
    git.pack(known)
    if known and previous is not None:
        with suppress(OSError):  # its entries of unchanged files spare git from reading these
            shutil.copyfile(previous / ".git" / "index", git_dir / "index")
    git.make_index()


def _configuration(history: History) -> str:
    """Ours, whatever the workspace's repository has.

    Git compares only size and time with its index: in a guest, a file may have another inode and
    owner, and each hard link to it changes its ctime.
    """
    sha256 = len(history.commit) == _SHA256
    return (
        f"[core]\n\trepositoryformatversion = {int(sha256)}\n\tfilemode = true\n\tbare = false\n"
        "\tlogallrefupdates = true\n\tcheckstat = minimal\n\ttrustctime = false\n"
    ) + ("[extensions]\n\tobjectformat = sha256\n" if sha256 else "")


def _packed_refs(history: History) -> bytes:
    return b"".join(b"%b %b\n" % (target.encode(), name) for name, target in history.tags)


class _Git:
    """Runs git in the new repository."""

    def __init__(self, history: History, tree: Path, check: Callable[[], None]) -> None:
        self._history = history
        self._tree = tree
        self._git_dir = tree / ".git"
        self._check = check
        # Not as git's own directory of objects: git writes temporary files to that. In quotes, a
        # colon in a path separates nothing.
        escaped = str(history.objects).replace("\\", "\\\\").replace('"', '\\"')
        self._theirs = f'"{escaped}"'

    def run(
        self,
        *args: str,
        stdin: bytes = b"",
        success: tuple[int, ...] = (0,),
        **variables: str,
    ) -> subprocess.CompletedProcess[bytes]:
        base = {
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": str(self._git_dir),
            "GIT_WORK_TREE": str(self._tree),
            "HOME": str(self._git_dir),
            "XDG_CONFIG_HOME": str(self._git_dir),
        }
        return run_git(
            # Whatever fsmonitor or untracked cache an index asks for is not ours.
            ["-c", "core.attributesfile=/dev/null", "-c", "core.hookspath=/dev/null", *args],
            env={**self._history.environment, **base, **variables},
            cwd=self._tree,
            where=self._tree,
            stdin=stdin,
            success=success,
            secs=PACK_SECS,
            check=self._check,
        )

    def link_objects(self, previous: Path) -> list[str]:
        """Link the previous repository's packs; its commit and tags, empty if there are none.

        Only if all of these are in the new history: an amended commit must not come back.
        """
        packs = previous / "objects" / "pack"
        try:
            known = [(previous / "HEAD").read_text().strip()]
            tags = (previous / _REFS).read_bytes()
            files = os.listdir(packs)
        except OSError:
            return []
        if sum(name.endswith(".pack") for name in files) >= _MAX_PACKS:
            return []
        now = set(_packed_refs(self._history).splitlines())
        if not now.issuperset(tags.splitlines()) or (previous / "shallow").exists():
            return []
        if self._history.shallow or not self._contains(known[0]):
            return []
        try:
            for name in files:
                os.link(packs / name, self._git_dir / "objects" / "pack" / name)
        except OSError:
            for name in os.listdir(self._git_dir / "objects" / "pack"):
                (self._git_dir / "objects" / "pack" / name).unlink()
            return []
        return known + [line.split()[0].decode() for line in tags.splitlines()]

    def _contains(self, commit: str) -> bool:
        if commit == self._history.commit:
            return True
        try:
            asked = self.run(
                "merge-base", "--is-ancestor", commit, self._history.commit,
                success=(0, 1), GIT_ALTERNATE_OBJECT_DIRECTORIES=self._theirs,
            )  # fmt: skip
        except Unreadable:
            return False  # the repository does not have it any more
        return asked.returncode == 0

    def pack(self, known: list[str]) -> None:
        """Pack the history's objects, apart from those that the known ones lead to."""
        history = self._history
        wanted = [history.commit, *(target for _, target in history.tags)]
        if set(wanted) <= set(known):
            return
        revisions = [*wanted, *(f"^{one}" for one in known)]
        try:
            self.run(
                "pack-objects", "--revs", "--quiet", "--non-empty", "--delta-base-offset",
                str(self._git_dir / "objects" / "pack" / "pack"),
                stdin="".join(f"{one}\n" for one in revisions).encode(),
                GIT_ALTERNATE_OBJECT_DIRECTORIES=self._theirs,
            )  # fmt: skip
        except Unreadable as error:
            raise Unreadable(
                f"{history.objects}: git cannot pack the history of {history.commit[:12]}",
                details=error.details,
                resolution="if it is a partial clone, fetch what it lacks: `git fetch --refetch"
                " --no-filter`; otherwise `git fsck` says what is wrong",
            ) from None
        except SnapshotError as error:
            raise SnapshotError(
                f"{history.objects}: packing the history of {history.commit[:12]} for"
                f" `git = true` failed: {error.headline}",
                resolution="use a shallow clone as the workspace: `git clone --depth`",
            ) from None

    def make_index(self) -> None:
        """Make the index of the commit, and note which files of the tree are as it says."""
        self.run("read-tree", "--reset", self._history.commit)
        marked = self.run("ls-files", "-z", "-t").stdout.split(b"\0")
        before = {line[2:] for line in marked if line.startswith(b"S ")}
        self._mark("--no-skip-worktree", before - self._history.left_out)
        if self._history.left_out:
            missing = set(self.run("ls-files", "-z", "--deleted").stdout.split(b"\0"))
            self._mark("--skip-worktree", missing & self._history.left_out)
        # Here inodes do count: an entry of the previous index is of this file, or is not believed.
        self.run("-c", "core.checkstat=default", "update-index", "-q", "--refresh", success=(0, 1))

    def _mark(self, how: str, names: set[bytes]) -> None:
        if names:
            self.run("update-index", how, "-z", "--stdin", stdin=b"\0".join(names) + b"\0")
