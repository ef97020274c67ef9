"""Publishes snapshots: a workspace is copied once, named by its content, and never changed.

A snapshot is `HASH/` in a private directory. It appears under its name only when it is complete: it
is written under another name, synced, and renamed. The same tree has the same name, so an unchanged
workspace is hashed but not copied, and two publishers of the same tree both succeed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator.errors import SnapshotError
from orchestrator.snapshot.files import workspace_files

_FORMAT = b"pikaci snapshot 1\0"
UNFINISHED = ".new-"


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot; `commit` and `dirty` are None outside a repository.

    `warnings` are one line each, about files that may not be what the user expects.
    """

    hash: str
    path: Path
    commit: str | None
    dirty: bool | None
    warnings: tuple[str, ...] = ()


async def publish(
    workspace: Path,
    snapshots: Path,
    *,
    exclude: tuple[Path, ...] = (),
    include: tuple[str, ...] = (),
    owner: tuple[int, int],
) -> Snapshot:
    """Publish the workspace in `snapshots`, unless it is there already.

    `owner` is the (uid, gid) of the job's user in a guest. As root, the files are given to it, with
    their modes. Otherwise the copy is made readable for everybody, which is safe because
    `snapshots` is private. The hash covers names, bytes, modes and link targets as they are in the
    workspace. A cancellation takes effect between two files.
    """
    return await trio.to_thread.run_sync(
        lambda: _publish(workspace, snapshots, exclude, include, owner)
    )


def _publish(
    workspace: Path,
    snapshots: Path,
    exclude: tuple[Path, ...],
    include: tuple[str, ...],
    owner: tuple[int, int],
) -> Snapshot:
    try:
        files = workspace_files(workspace, exclude=exclude, include=include)
        found = _hash_tree(workspace, files.names)
        if not (snapshots / found).exists():
            found = _copy(workspace, snapshots, files.names, owner)
    except OSError as error:
        raise SnapshotError(
            f"the snapshot of {workspace} failed: {error}",
            resolution="check the file's permissions and the disk's free space",
        ) from error
    return Snapshot(found, snapshots / found, files.commit, files.dirty, files.warnings)


def _copy(workspace: Path, snapshots: Path, names: list[bytes], owner: tuple[int, int]) -> str:
    """Copy the named files; returns the hash of the copy."""
    new = snapshots / f"{UNFINISHED}{secrets.token_hex(8)}"
    new.mkdir(mode=0o755)
    try:
        new.chmod(0o755)
        made = {b""}
        for name in names:
            trio.from_thread.check_cancelled()
            _copy_one(workspace, new, name, made)
        found = _hash_tree(new, names)
        _hand_over(new, owner)
        _sync(new)
        try:
            new.rename(snapshots / found)
        except OSError:
            if not (snapshots / found).is_dir():
                raise
            # Another publisher was faster; its copy is identical.
            shutil.rmtree(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return found


def _copy_one(workspace: Path, new: Path, name: bytes, made: set[bytes]) -> None:
    source = os.path.join(os.fsencode(workspace), name)
    target = os.path.join(os.fsencode(new), name)
    _make_parents(new, os.path.dirname(name), made)
    try:
        shutil.copyfile(source, target, follow_symlinks=False)
        shutil.copystat(source, target, follow_symlinks=False)
    except FileNotFoundError:
        pass  # deleted since it was listed


def _hash_tree(root: Path, names: list[bytes]) -> str:
    """The content hash of the named files; each part is prefixed with its length."""
    whole = hashlib.sha256(_FORMAT)
    for name in names:
        trio.from_thread.check_cancelled()
        path = os.path.join(os.fsencode(root), name)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                kind, content = b"link", os.readlink(path)
            else:
                kind = b"file %o" % stat.S_IMODE(status.st_mode)
                content = _digest(path)
        except FileNotFoundError:
            continue
        for part in (name, kind, content):
            whole.update(b"%d:" % len(part) + part)
    return whole.hexdigest()


def _digest(path: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _make_parents(new: Path, parent: bytes, made: set[bytes]) -> None:
    if parent in made:
        return
    _make_parents(new, os.path.dirname(parent), made)
    target = os.path.join(os.fsencode(new), parent)
    os.mkdir(target)
    os.chmod(target, 0o755)  # regardless of the umask
    made.add(parent)


def _hand_over(new: Path, owner: tuple[int, int]) -> None:
    """Let the job's user read everything."""
    for directory, subdirectories, files in os.walk(os.fsencode(new)):
        for name in [b"", *subdirectories, *files]:
            path = os.path.join(directory, name)
            if os.geteuid() == 0:
                status = os.lstat(path)
                os.lchown(path, *owner)
                if not stat.S_ISLNK(status.st_mode):
                    os.chmod(path, stat.S_IMODE(status.st_mode))  # chown clears setuid
            elif os.geteuid() != owner[0] and not os.path.islink(path):
                mode = stat.S_IMODE(os.lstat(path).st_mode)
                os.chmod(path, mode | 0o444 | (0o111 if mode & 0o100 else 0))


def _sync(directory: Path) -> None:
    """Sync the directory's file system: once, instead of file by file."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed")
    finally:
        os.close(descriptor)
