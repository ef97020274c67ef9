"""A unified kernel image: one EFI program made of systemd's stub, a kernel and an initrd. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from states.errors import PikaciError

# Of the PE format: where its header is, and fields of it.
_HEADER_AT = 0x3C
_SECTIONS, _OPTIONAL_SIZE = 6, 20
_OPTIONAL = 24
_ALIGNMENTS, _IMAGE_SIZE = 32, 56
_SECTION = struct.Struct("<8sIIIIIIHHI")
_INITIALIZED, _READABLE = 0x40, 0x40000000
_PAGE = 4096


class BadStub(PikaciError):
    """The stub is not an EFI program to which sections can be added."""


def unified_kernel(stub: bytes, sections: Sequence[tuple[str, bytes]]) -> bytes:
    """The stub with these sections at its end, such as `.cmdline`, `.linux` and `.initrd`.

    The names have at most 8 bytes. Raises `BadStub`.
    """
    try:
        return _add(stub, sections)
    except struct.error:
        raise BadStub("the EFI stub is not a PE file") from None


def _header(program: bytes) -> int:
    (header,) = struct.unpack_from("<I", program, _HEADER_AT)
    if program[header : header + 4] != b"PE\0\0":
        raise BadStub("the EFI stub is not a PE file")
    return int(header)


def _table(program: bytes, header: int) -> list[int]:
    (count,) = struct.unpack_from("<H", program, header + _SECTIONS)
    (size,) = struct.unpack_from("<H", program, header + _OPTIONAL_SIZE)
    start = header + _OPTIONAL + size
    return [start + index * _SECTION.size for index in range(count)]


def _add(stub: bytes, sections: Sequence[tuple[str, bytes]]) -> bytes:
    header = _header(stub)
    table = _table(stub, header)
    known = [_SECTION.unpack_from(stub, at) for at in table]
    optional = header + _OPTIONAL
    section_alignment, file_alignment = struct.unpack_from("<II", stub, optional + _ALIGNMENTS)
    end = table[-1] + _SECTION.size
    first = min(start for _, _, _, _, start, *_ in known if start)
    if end + len(sections) * _SECTION.size > first:
        raise BadStub(f"the EFI stub has no room for {len(sections)} more sections")
    image = bytearray(stub)
    address = max(at + size for _, size, at, *_ in known)
    for name, content in sections:
        address = _up(address, max(_PAGE, section_alignment))
        image.extend(bytes(_up(len(image), file_alignment) - len(image)))
        size, stored = len(content), _up(len(content), file_alignment)
        row = (name.encode(), size, address, stored, len(image), 0, 0, 0, 0)
        _SECTION.pack_into(image, end, *row, _INITIALIZED | _READABLE)
        image.extend(content.ljust(stored, b"\0"))
        address += size
        end += _SECTION.size
    struct.pack_into("<H", image, header + _SECTIONS, len(table) + len(sections))
    struct.pack_into("<I", image, optional + _IMAGE_SIZE, _up(address, section_alignment))
    return bytes(image)


def _up(number: int, alignment: int) -> int:
    return -(-number // alignment) * alignment
