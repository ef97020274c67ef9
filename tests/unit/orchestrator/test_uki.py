"""A kernel, its command line and its initrd become one EFI program."""

from __future__ import annotations

import struct

import pytest

from orchestrator.image.uki import BadStub, unified_kernel

FIRST = 0x400


def stub(*, first: int = FIRST) -> bytes:
    """A PE file with one section, as large as its header lets it be."""
    optional = bytearray(240)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<II", optional, 32, 0x200, 0x200)
    header = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, len(optional), 0)
    section = struct.pack("<8sIIIIIIHHI", b".text", 5, 0x4000, 0x200, first, 0, 0, 0, 0, 0)
    start = bytearray(64)
    struct.pack_into("<I", start, 0x3C, 64)
    return bytes(start + header + optional + section).ljust(first, b"\0") + b"code\0".ljust(0x200)


def sections_of(program: bytes) -> dict[str, bytes]:
    """The sections of an EFI program, by their names: read as the firmware does."""
    (header,) = struct.unpack_from("<I", program, 0x3C)
    signature, _, count, _, _, _, size, _ = struct.unpack_from("<4sHHIIIHH", program, header)
    assert b"PE\0\0" == signature
    rows = struct.iter_unpack(
        "<8sIIIIIIHHI", program[header + 24 + size : header + 24 + size + 40 * count]
    )
    return {
        name.rstrip(b"\0").decode(): program[start : start + length]
        for name, length, _, _, start, *_ in rows
    }


def test_every_section_is_found_again() -> None:
    """At its size, in its order, behind what the stub had."""
    wanted = {".cmdline": b"quiet", ".linux": bytes(range(256)) * 99, ".initrd": b"x" * 512}
    program = unified_kernel(stub(), list(wanted.items()))

    assert {".text": b"code\0", **wanted} == sections_of(program)
    assert program[FIRST : FIRST + 4] == b"code"


def test_no_two_sections_are_at_one_address() -> None:
    """Each begins a page of its own, behind the one before; the image's size covers all."""
    program = unified_kernel(stub(), [(".a", b"1" * 5000), (".b", b"2")])
    table = 64 + 24 + 240
    rows = [struct.unpack_from("<8sIIIII", program, table + 40 * n) for n in range(3)]

    assert [(0x4000, 5), (0x5000, 5000), (0x7000, 1)] == [(row[2], row[1]) for row in rows]
    assert all(row[4] % 0x200 == 0 for row in rows)
    assert 0x7200 == struct.unpack_from("<I", program, 64 + 24 + 56)[0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "not a PE file"),
        (b"MZ".ljust(80, b"\0"), "not a PE file"),
        (stub(first=384), "no room for 2 more sections"),
    ],
)
def test_what_is_no_stub_is_told(bad: bytes, reason: str) -> None:
    """Nothing is made of it."""
    with pytest.raises(BadStub, match=reason):
        unified_kernel(bad, [(".a", b"1"), (".b", b"2")])
