"""Finds calls that wait for something in the thread of trio's loop: files, syncs, sleeps, SQL.

A profile function sees every call of a C function. Which function it is says its kind; the frames
above it say whose it is: calls count that an async function of the product makes, directly or
through other functions. What a test does itself, or the fake Incus, is theirs.
"""

from __future__ import annotations

import inspect
import io
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
PRODUCT = str(ROOT / "orchestrator") + os.sep
_NOT_WATCHED = ("fake_incus/", "testing.py", "cli/")

# Read once in a process, from a file system that is always there.
ONCE = ("journal/stamp.py:boot_id",)

_FUNCTIONS = {
    ("file", "posix"): "open stat lstat fstat statvfs fstatvfs access listdir scandir mkdir rmdir"
    " rename replace link symlink readlink unlink remove chmod fchmod chown fchown lchown utime"
    " truncate ftruncate getxattr setxattr listxattr posix_fallocate sendfile copy_file_range"
    " pread pwrite readv writev preadv pwritev",
    ("file", "_io"): "open open_code",
    ("file", "io"): "open open_code",
    ("sync", "posix"): "fsync fdatasync sync",
    ("process", "posix"): "fork forkpty posix_spawn posix_spawnp system wait waitpid wait3 wait4",
    ("process", "_posixsubprocess"): "fork_exec",
    ("sleep", "time"): "sleep",
    ("lock", "fcntl"): "flock lockf",
    ("sql", "_sqlite3"): "connect",
    ("lookup", "_socket"): "getaddrinfo gethostbyname gethostbyaddr getnameinfo",
    ("lookup", "pwd"): "getpwnam getpwuid getpwall",
    ("lookup", "grp"): "getgrnam getgrgid getgrall",
}
_KINDS = {
    (module, name): kind for (kind, module), names in _FUNCTIONS.items() for name in names.split()
}
_STREAMS = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)
_STREAM_CALLS = frozenset(
    "read readinto readall readline readlines write flush truncate seek".split()
)
_DATABASES = (sqlite3.Connection, sqlite3.Cursor)
_DATABASE_CALLS = frozenset(
    "execute executemany executescript commit rollback close backup fetchone fetchmany fetchall".split()
)


def kind_of(function: Any) -> str:
    """The kind of a C function that waits; empty for one that does not."""
    name, owner = function.__name__, function.__self__
    if isinstance(owner, _STREAMS):
        return "file" if name in _STREAM_CALLS else ""
    if isinstance(owner, _DATABASES):
        return "sql" if name in _DATABASE_CALLS else ""
    module = owner.__name__ if inspect.ismodule(owner) else function.__module__
    return _KINDS.get((module, name), "")


def caller(frame: FrameType | None) -> tuple[str, str] | None:
    """Where the product calls, as `file.py:function`, and the async function that it is for."""
    place = ""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib"):
            return None  # a module's first import
        if code.co_filename.startswith(PRODUCT):
            name = code.co_filename.removeprefix(PRODUCT)
            if name.startswith(_NOT_WATCHED):
                return None
            place = place or f"{name}:{code.co_name}"
        if code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            if not code.co_filename.startswith(PRODUCT):
                # trio or a server calls what the product gave it, or a test calls the product.
                if str(ROOT / "tests") in code.co_filename or "/docs/" in code.co_filename:
                    return None
                frame = frame.f_back
                continue
            return place, f"{code.co_filename.removeprefix(PRODUCT)}:{code.co_name}"
        frame = frame.f_back
    return None


class Blocking:
    """What was found: `{(kind, function, where, for whom): times}`."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str, str, str], int] = {}

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "c_call":
            return
        kind = kind_of(argument)
        if kind and (found := caller(frame)) is not None:
            key = (kind, argument.__name__, *found)
            self.found[key] = self.found.get(key, 0) + 1

    def report(self) -> str:
        """The calls, a line each, without those that are known."""
        return "\n".join(
            f"{kind}: {name} in {where}, for {whom}, {times} times"
            for (kind, name, where, whom), times in sorted(self.found.items())
            if where not in ONCE
        )


@contextmanager
def watch_blocking() -> Iterator[Blocking]:
    """Look at this thread while the block runs."""
    blocking = Blocking()
    before = sys.getprofile()
    sys.setprofile(blocking._profile)
    try:
        yield blocking
    finally:
        sys.setprofile(before)
