"""The frames between the host and the guest's end of the way out. Pure.

A frame is a kind, a connection's number and a length (network byte order), then its bytes.
`nix/guest/pikaci-egress` is the other end.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Annotated

import msgspec

from states.errors import PikaciError

_HEAD = struct.Struct(">BII")
# Of one connection, each side sends at most this much that the other has not passed on yet. A guest
# has memory of its own for what comes; the host has all guests' together.
TO_HOST_BYTES = 1 << 18
TO_GUEST_BYTES = 1 << 20
MAX_FRAME_BYTES = TO_HOST_BYTES


class Kind(enum.IntEnum):
    """What a frame says of its connection.

    `hello`: the guest's state, as JSON, once at the start. `open`: there is a new connection.
    `eof`: the sender sends no more. `close`: nor does it read any more. `reset`: it failed.
    `credit`: this many bytes more were passed on.
    """

    HELLO = 0
    OPEN = 1
    DATA = 2
    EOF = 3
    CLOSE = 4
    RESET = 5
    CREDIT = 6


_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Hello(msgspec.Struct, frozen=True):
    """What the guest's end did while no host was there; the counts are of its whole life.

    `fresh`: it has only just started. `gap_ms`: how long connections had no way out. `cut`: those
    that broke when the host went away. `late`: those that waited, and gave up or were told.
    """

    fresh: bool
    gap_ms: _Number
    cut: _Number
    late: _Number


class BadFrame(PikaciError):
    """The guest does not keep to the protocol."""


def frame(kind: Kind, number: int, data: bytes | bytearray | memoryview = b"") -> bytes:
    """A frame's bytes."""
    return b"".join((_HEAD.pack(kind, number, len(data)), data))


class Frames:
    """Takes bytes as they come, and gives whole frames. Raises `BadFrame`."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, int, bytes]]:
        """The frames that are complete with these bytes."""
        self._received += data
        received, at = self._received, 0
        try:
            while len(received) - at >= _HEAD.size:
                kind, number, length = _HEAD.unpack_from(received, at)
                if length > MAX_FRAME_BYTES or kind > Kind.CREDIT:
                    raise BadFrame(f"the guest sent a frame of kind {kind} with {length} bytes")
                end = at + _HEAD.size + length
                if len(received) < end:
                    break
                with memoryview(received) as view:
                    body = bytes(view[at + _HEAD.size : end])
                at = end
                yield Kind(kind), number, body
        finally:
            del received[:at]
