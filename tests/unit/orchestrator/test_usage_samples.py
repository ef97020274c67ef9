"""The samples of what a job used: believed up to the first line that cannot be true."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.usage_samples import (
    MAX_BYTES,
    MAX_SAMPLES,
    Sample,
    cpus_over_time,
    parse,
    read_samples,
    samples_path,
    text,
)

GOOD = b"2000 500 1048576 7 10 20\n4000 3500 - 8 10 -\n"
WORDS = st.lists(st.sampled_from([b"-", b"0", b"7", b"12", b"1000", b"x", b""]), max_size=7)


def test_each_line_is_a_sample() -> None:
    """`-` is not known."""
    one, other = parse(GOOD)

    assert (2000, 500, 1048576, 7, 10, 20) == (
        one.ms,
        one.cpu_ms,
        one.memory_bytes,
        one.processes,
        one.read_bytes,
        one.written_bytes,
    )
    assert (4000, None, None) == (other.ms, other.memory_bytes, other.written_bytes)
    assert GOOD == text([one, other])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"6000",
        b"6000 4000 1 1 10 20 30",
        b"- 4000 1 1 10 20",
        b"4000 4000 1 1 10 20",
        b"6000 3499 1 1 10 20",
        b"6000 4000 1 1 9 20",
        b"6000 -4000 1 1 10 20",
        b"6000 4e3 1 1 10 20",
        b"6000 4000 1 1 10 " + b"9" * 19,
        b"6000 4000 1 1 10 \xd9\xa1",
        b"6000 4000 1 1 10 " + b"0" * 1000 + b"1",
        b"\x1b]0;x\x07",
    ],
)
def test_what_cannot_be_true_ends_them(line: bytes) -> None:
    """Nothing after it is believed."""
    assert parse(GOOD) == parse(GOOD + line + b"\n" + b"9000 9000 1 1 90 90\n")


@given(st.lists(WORDS.map(b" ".join)).map(b"\n".join) | st.binary())
def test_whatever_a_guest_writes(data: bytes) -> None:
    """What is believed stays the same when it is written and read again."""
    found = parse(data)

    assert found == parse(text(found))
    assert all(used >= 0 for _, used in cpus_over_time(found))


def test_they_are_bounded() -> None:
    """In bytes and in number."""
    many = b"".join(b"%d - - - - -\n" % ms for ms in range(MAX_SAMPLES + 10))

    assert MAX_SAMPLES == len(parse(many))
    assert [] == parse(b"1" * (MAX_BYTES * 2))


def test_cpus_are_those_between_two_samples() -> None:
    """The first is since the job's start; one without a number is passed over."""
    known = parse(b"2000 500 - - - -\n3000 - - - - -\n4000 3500 - - - -\n")

    assert [(2000, 0.25), (4000, 1.5)] == cpus_over_time(known)


def test_a_file_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    """Missing, a directory, a link, a pipe: no error, and no wait."""
    log = tmp_path / "guest.log"
    path = samples_path(log)

    assert tmp_path / "guest.usage" == path
    assert () == read_samples(log)
    path.symlink_to("/etc/passwd")
    assert () == read_samples(log)
    path.unlink()
    path.mkdir()
    assert () == read_samples(log)
    path.rmdir()
    path.write_bytes(GOOD)
    assert [2000, 4000] == [one.ms for one in read_samples(log)]
    assert isinstance(read_samples(log)[0], Sample)
