"""Unpacks the output of a job, a tree, as it comes out of the guest. Nothing in it is trusted.

Files, directories and symbolic links are made, and nothing else. Links are kept as they are, also
absolute ones, which mean something in a guest only; they are made last, so that no other name can
lead through one. Nobody on the host follows them.
"""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.attempt.tar_stream import BadArchive, Kind, Member, Sink, TarStream
from orchestrator.snapshot.content import Access
from orchestrator.units import size
from states.errors import PikaciError

MAX_ENTRIES = 1_000_000
MAX_NAME_BYTES = 4000  # Linux has no path of 4096
MAX_PART_BYTES = 255
MAX_DEPTH = 200  # what deletes a tree goes down one call for each directory
MAX_NAMES_BYTES = 512 << 20  # of all directories and links, which are kept in memory


class BadOutput(PikaciError):
    """What the job left cannot be an output. This is the job's fault, not the host's."""


class TreeWriter:
    """Takes the archive of a tree in pieces (`feed`), and writes it below `root`, which must exist.

    `finish` must follow. Both raise `BadOutput` for what the tree must not have, and `OSError` for
    problems with the host's disk. `max_bytes` bounds all files together.
    """

    def __init__(self, root: Path, *, access: Access, max_bytes: int) -> None:
        self.bytes = 0
        self.entries = 0
        self._names_bytes = 0
        self._root = os.fsencode(root)
        self._access = access
        self._max_bytes = max_bytes
        self._directories = {b""}
        self._links: list[tuple[bytes, bytes, int]] = []
        self._file: int | None = None
        self._member: Member
        self._archive = TarStream(self._begin, self._end)
        access.give(self._root, 0o755)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the archive."""
        try:
            self._archive.feed(chunk)
        except BadArchive as error:
            raise BadOutput(f"its archive cannot be read: {error}") from None

    def finish(self) -> None:
        """Make the links. Raises `BadOutput` if the archive is incomplete."""
        try:
            self._archive.close()
        except BadArchive as error:
            raise BadOutput(f"its archive cannot be read: {error}") from None
        for name, target, modified in self._links:
            path = self._root + b"/" + name
            try:
                os.symlink(target, path)
            except FileExistsError:
                raise _twice(name) from None
            self._access.give(path, None)
            os.utime(path, (modified, modified), follow_symlinks=False)

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _begin(self, member: Member) -> Sink | None:
        name = self._name(member)
        match member.kind:
            case Kind.DIRECTORY:
                self._make_directories(name)
                return None
            case Kind.SYMLINK:
                self._make_directories(os.path.dirname(name))
                target = os.fsencode(member.target)
                self._count(len(name) + len(target))
                self._links.append((name, target, member.modified))
                return None
            case Kind.FILE:
                return self._open(name, member)
        raise BadOutput(
            f"it has {member.kind.value}: {_shown(name)}",
            resolution="only files, directories and symbolic links can be in an output",
        )

    def _name(self, member: Member) -> bytes:
        name = os.fsencode(member.name.removeprefix("./").rstrip("/"))
        if name == b".":
            name = b""
        parts = name.split(b"/") if name else []
        if len(name) > MAX_NAME_BYTES or any(
            part in (b"", b".", b"..") or len(part) > MAX_PART_BYTES for part in parts
        ):
            raise BadOutput(
                f"it has the name {_shown(name)}", resolution="use plain relative names"
            )
        if len(parts) > MAX_DEPTH:
            raise BadOutput(
                f"it has directories nested more than {MAX_DEPTH} deep: {_shown(name)}",
                resolution=_LESS,
            )
        if not name and member.kind is not Kind.DIRECTORY:
            raise BadOutput("it is not a directory", resolution="name a directory")
        return name

    def _count(self, kept: int) -> None:
        """Count an entry, and the bytes of its names that are kept in memory."""
        self.entries += 1
        self._names_bytes += kept
        if self.entries > MAX_ENTRIES:
            raise BadOutput(f"it has more than {MAX_ENTRIES} files", resolution=_LESS)
        if self._names_bytes > MAX_NAMES_BYTES:
            most = size(MAX_NAMES_BYTES)
            raise BadOutput(f"its names have more than {most}", resolution=_LESS)

    def _make_directories(self, name: bytes) -> None:
        """Make a directory and those above it. Each counts, whether the archive lists it or not."""
        missing = []
        while name not in self._directories:
            missing.append(name)
            name = os.path.dirname(name)
        for one in reversed(missing):
            self._count(len(one))
            path = self._root + b"/" + one
            try:
                os.mkdir(path)
            except FileExistsError:
                raise _twice(one) from None
            self._access.give(path, 0o755)
            self._directories.add(one)

    def _open(self, name: bytes, member: Member) -> Sink:
        self.bytes += member.size
        if self.bytes > self._max_bytes:
            raise BadOutput(f"it has more than {size(self._max_bytes)}", resolution=_LESS)
        self._make_directories(os.path.dirname(name))
        self._count(0)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(self._root + b"/" + name, flags, 0o600)
        except FileExistsError:
            raise _twice(name) from None
        self._member = member
        return self._write

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _end(self) -> None:
        assert self._file is not None
        mode = 0o755 if self._member.executable else 0o644
        self._access.give(self._file, mode)
        os.utime(self._file, (self._member.modified, self._member.modified))
        self.close()


_LESS = "leave out what no other job needs"


def _twice(name: bytes) -> BadOutput:
    return BadOutput(f"it has the name {_shown(name)} twice")


def _shown(name: bytes) -> str:
    return ascii(os.fsdecode(name))[:200]
