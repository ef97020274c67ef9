"""Limits of what is collected, and what is there when they are reached."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.attempt.archive import Collector
from orchestrator.attempt.tar_stream import Member, TarStream
from orchestrator.units import size
from tests.unit.orchestrator.archives import (
    MAX_BYTES,
    MAX_LOG_BYTES,
    archive,
    collect,
    collect_all,
    pax_archive,
    tree,
)


def test_too_many_files_and_too_many_bytes_are_said(tmp_path: Path) -> None:
    """What is over a limit is named, and what came before is there."""
    (tmp_path / "few").mkdir()
    (tmp_path / "big").mkdir()
    many = archive(*[(f"f{number}", b"", {}) for number in range(5)])
    big = archive(("small", b"s", {}), ("big", b"b" * (2 * MAX_BYTES), {}))

    _, few = collect(tmp_path / "few", many, "**", max_files=3)
    _, large = collect(tmp_path / "big", big, "**")

    assert (3, 2) == (len(few.files), len(few.refused))
    assert size(MAX_BYTES) in large.problem
    assert "small" in tree(tmp_path / "big")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_endless_header_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    """A name of a gigabyte, or one that says so, ends the reading."""
    info = tarfile.TarInfo("././@LongLink")
    info.type = kind
    info.size = 1 << 30

    _, manifest = collect(tmp_path, info.tobuf() + b"x" * 5000, "**")

    assert "too large" in manifest.problem


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.size": "5000000", "GNU.sparse.map": "4999999,1"},
        {
            "GNU.sparse.size": "5000000",
            "GNU.sparse.numblocks": "1",
            "GNU.sparse.offset": "4999999",
            "GNU.sparse.numbytes": "1",
        },
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5000000"},
    ],
)
def test_a_sparse_file_does_not_unfold_past_the_limit(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    """A member of one byte that says it is 5 MB is not written, though 1 MB is the limit."""
    manifest = collect_all(tmp_path, pax_archive(("big", b"1\n0\n1\n".ljust(512, b"\0"), headers)))

    assert () == manifest.files
    assert manifest.refused or manifest.problem
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("tail", [b"", b"no header!" * 200])
def test_an_archive_without_its_end_is_not_all(tmp_path: Path, tail: bytes) -> None:
    """Cut off between two members, or followed by garbage: said, not taken for the end."""
    manifest = collect_all(tmp_path, pax_archive(("a", b"a", {}), end=False) + tail)

    assert ["a"] == [file.path for file in manifest.files]
    assert manifest.problem


def test_half_a_file_does_not_stay(tmp_path: Path) -> None:
    """A file that the archive breaks off in is neither on the host nor in the manifest."""
    manifest = collect_all(tmp_path, pax_archive(("a", b"a" * 9000, {}))[:6000])

    assert manifest.problem
    assert () == manifest.files
    assert not (tmp_path / "artifacts" / "a").exists()


def test_the_result_is_there_before_the_archive_ends(tmp_path: Path) -> None:
    """And the log; what is cut off in an artifact costs neither, and is said."""
    data = archive(
        ("result.json", b"{}", {}), ("guest.log", b"log", {}), ("big", b"b" * 100_000, {})
    )
    collector = Collector(tmp_path / "artifacts", ("**",), log_path=tmp_path / "log")
    collector.feed(data[:9000])

    manifest = collector.finish("it took too long")

    assert b"{}" == collector.result
    assert b"log" == (tmp_path / "log").read_bytes()
    assert ("it took too long", ()) == (manifest.problem, manifest.files)
    assert [] == os.listdir(tmp_path / "artifacts")


def test_the_half_of_a_log_is_kept(tmp_path: Path) -> None:
    """As far as the archive came."""
    data = archive(("result.json", b"{}", {}), ("guest.log", b"log" * 1000, {}))
    collector = Collector(tmp_path / "artifacts", ("**",), log_path=tmp_path / "log")
    collector.feed(data[:2048])
    collector.finish()

    assert (b"log" * 1000)[:512] == (tmp_path / "log").read_bytes()


def test_a_log_past_its_limit_is_cut_off(tmp_path: Path) -> None:
    """Whatever its header says, and what comes behind it is taken."""
    data = archive(("guest.log", b"x" * (MAX_LOG_BYTES + 5000), {}), ("a", b"a", {}))

    _, manifest = collect(tmp_path, data, "**")

    assert MAX_LOG_BYTES == (tmp_path / "log").stat().st_size
    assert ["a"] == [file.path for file in manifest.files]


def test_what_fits_nowhere_is_dropped(tmp_path: Path) -> None:
    """However long it is, neither the disk nor the memory has it."""
    info = tarfile.TarInfo("endless")
    info.size = 1 << 50
    collector = Collector(
        tmp_path / "artifacts", ("**",), max_bytes=1000, max_log_bytes=1000, log_path=None
    )
    collector.feed(archive(("result.json", b"{}", {}), ("a", b"a", {}))[:2048])
    collector.feed(info.tobuf(tarfile.GNU_FORMAT))
    tracemalloc.start()
    for _ in range(50):
        collector.feed(b"x" * (1 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    manifest = collector.finish()

    assert peak < 4 << 20
    assert b"{}" == collector.result
    assert ["a"] == [file.path for file in manifest.files]
    assert ["endless"] == [refused.path for refused in manifest.refused]
    assert {"a": b"a"} == tree(tmp_path)


@given(
    members=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=300),
            st.binary(max_size=2000),
        ),
        max_size=5,
        unique_by=lambda member: member[0],
    ),
    sizes=st.lists(st.integers(1, 3000), min_size=1),
)
@settings(max_examples=60)
def test_how_an_archive_is_cut_up_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], sizes: list[int]
) -> None:
    """Piece by piece it is what Python's own reader finds in the whole."""
    data = archive(*[(name, content, {}) for name, content in members])
    read: list[tuple[str, bytes]] = []
    pieces: list[bytes] = []

    def on_member(member: Member) -> Callable[[bytes], None]:
        pieces.clear()
        read.append((member.name, b""))
        return pieces.append

    def on_end() -> None:
        read[-1] = (read[-1][0], b"".join(pieces))

    stream = TarStream(on_member, on_end, max_rest=7)
    left = data + b"the rest is not kept"
    for length in itertools.cycle(sizes):
        if not left:
            break
        stream.feed(left[:length])
        left = left[length:]
    stream.close()

    with tarfile.open(fileobj=io.BytesIO(data)) as whole:
        expected = [
            (member.name, (whole.extractfile(member) or io.BytesIO()).read()) for member in whole
        ]
    assert expected == read
    assert len(stream.rest) <= 7
