"""Reads the files of a tree, and copies them: their bytes, and the SHA-256 of these.

No link is followed, and no read waits for a pipe. Holes are neither read nor written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_BLOCK = 512  # what st_blocks counts


@dataclass(frozen=True)
class Access:
    """Who may read the copies: the (uid, gid) of the job's user.

    Root gives them to it, with their modes. Otherwise they are made readable for everybody.
    """

    owner: tuple[int, int]

    def mode(self, mode: int) -> int:
        """The mode of the copy of a file with this mode."""
        mode = stat.S_IMODE(mode)
        if os.geteuid() in (0, self.owner[0]):
            return mode
        return mode | 0o444 | (0o111 if mode & 0o100 else 0)

    @property
    def holder(self) -> tuple[int, int]:
        """The (uid, gid) that the copies get."""
        return self.owner if os.geteuid() == 0 else (os.geteuid(), os.getegid())

    def give(self, target: bytes | int, mode: int | None) -> None:
        """Hand a copy over: a path, or the descriptor of one. No mode for a link."""
        if os.geteuid() == 0:
            os.chown(target, *self.owner, follow_symlinks=isinstance(target, int))
        if mode is not None:
            os.chmod(target, mode)  # after chown, which clears setuid; whatever the umask


def digest(path: bytes) -> bytes:
    """The SHA-256 of a regular file's bytes."""
    whole = hashlib.sha256()
    with _opened(path) as (source, status):
        for chunk in _chunks(source, status):
            _hash(whole, chunk)
    return whole.digest()


def copy_file(path: bytes, target: bytes, access: Access) -> tuple[os.stat_result, bytes]:
    """Copy a regular file with its mode and times; its status before that, and its SHA-256."""
    whole = hashlib.sha256()
    with _opened(path) as (source, status):
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for chunk in _chunks(source, status):
                _hash(whole, chunk)
                if isinstance(chunk, int):
                    os.ftruncate(made, os.lseek(made, chunk, os.SEEK_CUR))
                else:
                    _write(made, chunk)
            access.give(made, access.mode(status.st_mode))
            os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(made)
    return status, whole.digest()


@contextmanager
def _opened(path: bytes) -> Iterator[tuple[int, os.stat_result]]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{os.fsdecode(path)!a} is not a regular file any more")
        yield descriptor, status
    finally:
        os.close(descriptor)


def _chunks(descriptor: int, status: os.stat_result) -> Iterator[bytes | int]:
    """The file from its beginning to its end, piece by piece: bytes, or the length of a hole."""
    if status.st_blocks * _BLOCK >= status.st_size:
        size = min(status.st_size + 1, _CHUNK)  # one more shows the end without another read
        while data := os.read(descriptor, size):
            yield data
            if len(data) < size:
                return
        return
    at = 0
    while True:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            # There is no data any more.
            begin = end = os.lseek(descriptor, 0, os.SEEK_END)
        if begin > at:
            yield begin - at
        if begin >= end:
            return
        os.lseek(descriptor, begin, os.SEEK_SET)
        at = begin
        while at < end and (data := os.read(descriptor, min(_CHUNK, end - at))):
            yield data
            at += len(data)
        if at < end:
            return  # it was cut meanwhile


def _hash(whole: hashlib._Hash, chunk: bytes | int) -> None:
    trio.from_thread.check_cancelled()
    if isinstance(chunk, bytes):
        whole.update(chunk)
        return
    while chunk > 0:
        trio.from_thread.check_cancelled()
        whole.update(_ZEROS if chunk >= _CHUNK else bytes(chunk))
        chunk -= _CHUNK


def _write(descriptor: int, data: bytes) -> None:
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, data[done:])
