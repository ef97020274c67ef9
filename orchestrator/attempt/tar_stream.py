"""Parses a tar archive as it arrives, in the one format that the guest's command writes.

That is GNU tar's format: regular files, with long names in members of their own. Links, pipes and
devices are reported, so that they can be refused by name; any other type is an error. Only one
header is held in memory, and nothing in the archive is trusted.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

BLOCK = 512
MAX_NAME_BYTES = 4096  # Linux has no longer path
_MAX_TIME = 1 << 40  # seconds: no file system's times go as far


class BadArchive(ValueError):
    """These bytes are not part of such an archive; earlier members remain valid."""


class Kind(enum.Enum):
    """The kind of a member."""

    FILE = "a regular file"
    DIRECTORY = "a directory"
    SYMLINK = "a symbolic link"
    HARD_LINK = "a hard link"
    OTHER = "a device, a pipe or a sparse file"


@dataclass(frozen=True)
class Member:
    """A member's header. `name` is unchanged; bytes that are not UTF-8 become surrogates.

    `modified` is in seconds since the epoch, `target` where a link leads to.
    """

    name: str
    kind: Kind
    size: int
    executable: bool
    modified: int = 0
    target: str = ""


Sink = Callable[[bytes], None]

_KINDS = {
    **dict.fromkeys((b"0", b"\0", b"7"), Kind.FILE),
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
    # A sparse file could expand to any size; a device has only a name.
    **dict.fromkeys((b"3", b"4", b"6", b"S"), Kind.OTHER),
}
_LONG_NAME, _LONG_LINK = b"L", b"K"


class TarStream:
    """Takes an archive in pieces (`feed`) of any size.

    `on_member` is called for each member, and returns a sink for its content, or None to skip it.
    `on_end` is called when the content is complete. `rest` holds what follows the archive's end, up
    to `max_rest` bytes.
    """

    def __init__(
        self,
        on_member: Callable[[Member], Sink | None],
        on_end: Callable[[], None],
        *,
        max_rest: int = 0,
    ) -> None:
        self.rest = b""
        self.ended = False
        self._on_member = on_member
        self._on_end = on_end
        self._max_rest = max_rest
        self._block = bytearray()
        self._left = 0  # bytes left of the current content
        self._padding = 0
        self._sink: Sink | None = None
        self._long: bytearray | None = None  # a long name or target, while it arrives
        self._long_kind = b""
        self._longs: dict[bytes, str] = {}  # of the next member
        self._zero_blocks = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises `BadArchive`, and whatever the sinks raise."""
        view = memoryview(data)
        while view:
            if self.ended:
                self.rest += view[: self._max_rest - len(self.rest)]
                return
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                if self._sink is not None:
                    self._sink(bytes(piece))
                if not self._left:
                    self._finish_content()
            elif self._padding:
                count = min(self._padding, len(view))
                self._padding -= count
                view = view[count:]
            else:
                count = min(BLOCK - len(self._block), len(view))
                self._block += view[:count]
                view = view[count:]
                if len(self._block) == BLOCK:
                    block, self._block = bytes(self._block), bytearray()
                    self._take_header(block)

    def close(self) -> None:
        """Raise `BadArchive` if the archive is incomplete."""
        if not self.ended:
            raise BadArchive("it breaks off")

    def _take_header(self, block: bytes) -> None:
        if not any(block):
            self._zero_blocks += 1
            self.ended = self._zero_blocks == 2
            return
        if self._zero_blocks:
            raise BadArchive("its end mark is broken")
        if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            raise BadArchive("a header's checksum is wrong")
        size, kind = _number(block[124:136]), block[156:157]
        if kind in (_LONG_NAME, _LONG_LINK):
            if not 0 < size <= MAX_NAME_BYTES:
                raise BadArchive("a header is too large, or empty")
            self._long, self._long_kind = bytearray(), kind
            self._begin_content(size, self._long.extend)
            return
        if kind not in _KINDS:
            raise BadArchive(f"it has a member of type {kind.decode('latin-1')!a}")
        longs, self._longs = self._longs, {}
        member = Member(
            name=longs.get(_LONG_NAME, _short_name(block)),
            kind=_KINDS[kind],
            size=size,
            executable=bool(_number(block[100:108]) & 0o100),
            modified=_time(block[136:148]),
            target=longs.get(_LONG_LINK, _text(block[157:257])),
        )
        self._begin_content(size, self._on_member(member))

    def _begin_content(self, size: int, sink: Sink | None) -> None:
        self._left, self._padding, self._sink = size, -size % BLOCK, sink
        if size == 0:
            self._finish_content()

    def _finish_content(self) -> None:
        if self._long is not None:
            self._longs[self._long_kind] = _text(bytes(self._long))
            self._long = None
        elif self._sink is not None:
            self._on_end()
        self._sink = None


def _short_name(block: bytes) -> str:
    name = _text(block[:100])
    # With GNU's magic, this field holds times; with POSIX's, a prefix.
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """A number in octal digits, or in GNU's binary form for large values."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        if digits:
            raise BadArchive("a header's number cannot be read")
        return 0
    return int(digits, 8)


def _time(field: bytes) -> int:
    """A time; GNU's binary form also has those before the epoch. One too far away is bounded."""
    if field[0] == 0xFF:
        return max(int.from_bytes(field, "big", signed=True), -_MAX_TIME)
    return min(_number(field), _MAX_TIME)
