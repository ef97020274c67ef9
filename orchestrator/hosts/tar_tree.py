"""The entries of a tree as members of a tar archive, in pieces. Blocks on the disk.

Names, bytes, modes, times, link targets and holes are the tree's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from orchestrator.hosts import tar
from states.errors import PikaciError

if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_STAT_BLOCK = 512


def member(
    path: bytes, name: bytes, owner: tuple[int, int], digest: _Hash | None = None
) -> Iterator[bytes]:
    """What is at this path, as a member of this name, which belongs to `owner`, a (uid, gid).

    `digest` gets the bytes of a file. Raises `OSError`, and `PikaciError` if it is no file,
    directory or link, or changes meanwhile.
    """
    status = os.lstat(path)
    mode, modified = stat.S_IMODE(status.st_mode), status.st_mtime_ns
    if stat.S_ISDIR(status.st_mode):
        yield tar.header(tar.Entry(name, tar.DIRECTORY, mode, 0, modified), owner)
    elif stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        yield tar.header(tar.Entry(name, tar.LINK, mode, 0, modified, target), owner)
    elif stat.S_ISREG(status.st_mode):
        yield from _file(path, name, owner, digest)
    else:
        raise PikaciError(
            f"{os.fsdecode(path)!a} cannot be sent to another host",
            resolution="only files, directories and symbolic links can",
        )


def own_member(name: bytes, content: bytes) -> bytes:
    """A file that is in no tree."""
    entry = tar.Entry(name, tar.FILE, 0o644, len(content))
    return tar.header(entry, (0, 0)) + content + tar.padding(len(content))


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces: a header alone is not worth a call."""
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield b"".join(kept)
            kept, size = [], 0
    yield b"".join(kept)


def _file(
    path: bytes, name: bytes, owner: tuple[int, int], digest: _Hash | None
) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        size, mode = status.st_size, stat.S_IMODE(status.st_mode)
        entry = tar.Entry(name, tar.FILE, mode, size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):
            raise _changed(path)
        data = [(0, size)]
        if status.st_blocks * _STAT_BLOCK >= size:
            yield tar.header(entry, owner)
        else:
            data = list(_data(descriptor, size))
            yield tar.sparse_header(entry, owner, data)
        at = 0
        for offset, length in data:
            if digest is not None:
                _add_zeros(digest, offset - at)
            for chunk in _bytes(descriptor, offset, length, path):
                if digest is not None:
                    digest.update(chunk)
                yield chunk
            at = offset + length
        yield tar.padding(sum(length for _, length in data))
    finally:
        os.close(descriptor)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The pieces of a file that are no holes, and an empty one at its end."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # no data any more
        at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        yield begin, at - begin
    yield size, 0


def _bytes(descriptor: int, offset: int, length: int, path: bytes) -> Iterator[bytes]:
    while length > 0:
        chunk = os.pread(descriptor, min(_CHUNK, length), offset)
        if not chunk:
            raise _changed(path)
        yield chunk
        offset += len(chunk)
        length -= len(chunk)


def _add_zeros(digest: _Hash, count: int) -> None:
    for start in range(0, count, _CHUNK):
        digest.update(_ZEROS[: count - start])


def _changed(path: bytes) -> PikaciError:
    return PikaciError(f"{os.fsdecode(path)!a} changed while it was sent to another host")
