"""Remembers which bytes the files of a workspace had, so that unchanged ones are not read again.

It works like git's index: a file with the size, times, mode and inode of its entry has the bytes of
its entry. A file that was written just before it was read may be written again without a new time,
on a file system with coarse times. Its entry is kept, but the file is read again.

The index is only a cache: one that is torn, or of another workspace or format, counts as none.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

UNFINISHED = ".new-"
_FORMAT = b"pikaci index 1"
_COARSE_NS = 2_000_000_000  # the coarsest times of a file system in use: FAT's
_HEADER = 256  # bytes; the first line is shorter


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A regular file when it was read. Times are in ns since the epoch, `digest` is a SHA-256."""

    size: int
    mode: int
    modified: int
    changed: int
    inode: int
    digest: bytes

    @classmethod
    def now(cls, status: os.stat_result, digest: bytes = b"") -> Seen:
        """An entry for a file that had this status before it was read; no digest: it was not."""
        return cls(
            status.st_size,
            status.st_mode,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            digest,
        )

    def with_digest(self, digest: bytes) -> Seen:
        """The same file, when it was read."""
        return Seen(self.size, self.mode, self.modified, self.changed, self.inode, digest)

    def fits(self, now: Seen) -> bool:
        """Whether nothing of the file's status has changed; the digest does not count."""
        return (
            self.changed == now.changed
            and self.modified == now.modified
            and self.size == now.size
            and self.mode == now.mode
            and self.inode == now.inode
        )


class Index(msgspec.Struct, frozen=True):
    """The files of a workspace and, below `snapshot`, their copies.

    `began` is when the workspace was looked at, in ns since the epoch. `owner` is the (uid, gid)
    that the copies belong to.
    """

    workspace: bytes
    snapshot: str = ""
    owner: tuple[int, int] = (-1, -1)
    began: int = 0
    files: dict[bytes, Seen] = {}

    def find(self, name: bytes, now: Seen) -> Seen | None:
        """The entry of a file that has not been written since; None if it must be read."""
        seen = self.files.get(name)
        if seen is None or not seen.fits(now):
            return None
        settled = max(seen.changed, seen.modified) < self.began - _COARSE_NS
        return seen if settled else None


# Made here for the same reason as that of a manifest: two threads may be the first at once.
_DECODER = msgspec.msgpack.Decoder(Index)


def read_index(path: Path, workspace: Path) -> Index:
    """The index of a workspace; an empty one if there is none that can be used."""
    named = os.fsencode(workspace)
    with suppress(OSError, ValueError, msgspec.MsgspecError):
        header, _, body = path.read_bytes().partition(b"\n")
        if header.rpartition(b" ")[2] == hashlib.sha256(body).hexdigest().encode():
            index = _DECODER.decode(body)
            if header.startswith(_FORMAT + b" ") and index.workspace == named:
                return index
    return Index(named)


def write_index(path: Path, index: Index) -> None:
    """Replace the index at `path`. Where that fails, the next reader has more to do."""
    body = msgspec.msgpack.encode(index)
    header = f"{index.snapshot} {hashlib.sha256(body).hexdigest()}\n".encode()
    new = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(_FORMAT + b" " + header + body)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()


def snapshot_of(path: Path) -> str | None:
    """The snapshot that an index in a file was written for; None if it is no index."""
    try:
        with path.open("rb") as file:
            words = file.read(_HEADER).partition(b"\n")[0].split(b" ")
    except OSError:
        return None
    return words[-2].decode("ascii", "replace") if len(words) == 5 else None
