"""Archives from guests that nobody should believe."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.attempt.archive import unmatched
from tests.unit.orchestrator.archives import archive, collect, collect_all, pax_archive, tree


def test_files_of_the_globs_are_written_with_a_manifest(tmp_path: Path) -> None:
    """Result and log are told apart; artifacts land below the directory, with their hashes."""
    data = archive(
        ("./result.json", b"{}", {}),
        ("./guest.log", b"log", {}),
        ("./a/b.xml", b"xml", {"mode": 0o755}),
    )

    collector, manifest = collect(tmp_path, data, "a/**")

    assert b"{}" == collector.result
    assert b"log" == (tmp_path / "log").read_bytes()
    assert {"a/b.xml": b"xml"} == tree(tmp_path)
    assert os.access(tmp_path / "artifacts/a/b.xml", os.X_OK)
    assert ("", ()) == (manifest.problem, manifest.refused)
    assert [("a/b.xml", 3)] == [(file.path, file.size) for file in manifest.files]


def test_a_file_of_before_1970_is_collected(tmp_path: Path) -> None:
    """With whatever comes after it."""
    data = archive(("./old", b"1", {"mtime": -1}), ("./new", b"2", {"mtime": 1 << 80}))
    _, manifest = collect(tmp_path, data, "*")

    assert "" == manifest.problem
    assert {"old": b"1", "new": b"2"} == tree(tmp_path)


def test_a_glob_that_matched_nothing_is_known(tmp_path: Path) -> None:
    """A refused file counts; an archive without its end proves nothing."""
    data = archive(
        ("./result.json", b"{}", {}),
        ("./a/b.xml", b"xml", {}),
        ("link", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow"}),
    )
    globs = ("a/**", "*.xml", "lin?", "junit.xml")

    _, whole = collect(tmp_path / "whole", data, *globs)
    _, half = collect(tmp_path / "half", data[:2000], *globs)

    assert ["*.xml", "junit.xml"] == unmatched(globs, whole)
    assert [] == unmatched(globs, half)


HOSTILE = [
    ("../escape", b"x", {}),
    ("/etc/absolute", b"x", {}),
    ("a/../../escape", b"x", {}),
    ("a//b", b"x", {}),
    ("link", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow"}),
    ("hard", None, {"type": tarfile.LNKTYPE, "linkname": "result.json"}),
    ("fifo", None, {"type": tarfile.FIFOTYPE}),
    ("device", None, {"type": tarfile.CHRTYPE}),
    ("directory", None, {"type": tarfile.DIRTYPE}),
    ("new\nline", b"x", {}),
    ("escape\x1b[2J", b"x", {}),
    ("n" * 300, b"x", {}),
    ("/".join(["d"] * 600), b"x", {}),
    ("result.json", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow"}),
    ("guest.log", None, {"type": tarfile.FIFOTYPE}),
    ("result.json", b"x" * 100_000, {}),
]


@pytest.mark.parametrize("member", HOSTILE, ids=[ascii(name)[:20] for name, _, _ in HOSTILE])
def test_what_is_not_a_plain_file_is_refused_by_name(
    tmp_path: Path, member: tuple[str, bytes | None, dict[str, object]]
) -> None:
    """Nothing is written for it, nothing outside is touched, and the rest is collected."""
    base = tmp_path / "base"
    base.mkdir()

    collector, manifest = collect(base, archive(member, ("good", b"g", {})), "**")

    assert {"good": b"g"} == tree(base)
    assert 1 == len(manifest.refused)
    assert manifest.refused[0].path.isprintable()
    assert collector.result is None
    assert ["base"] == os.listdir(tmp_path)
    assert ["artifacts"] == os.listdir(base)


def test_what_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    """The globs are checked on the host too, whatever the guest sent."""
    _, manifest = collect(tmp_path, archive(("a.xml", b"", {}), ("b.txt", b"", {})), "*.xml")

    assert ["a.xml"] == list(tree(tmp_path))
    assert ["b.txt"] == [refused.path for refused in manifest.refused]


def test_a_file_and_a_directory_of_one_name_collide_harmlessly(tmp_path: Path) -> None:
    """The second is refused by name."""
    data = archive(("a", b"1", {}), ("a/b", b"2", {}), ("c/d", b"3", {}), ("c", b"4", {}))

    _, manifest = collect(tmp_path, data, "**")

    assert {"a": b"1", "c/d": b"3"} == tree(tmp_path)
    assert ["a/b", "c"] == [refused.path for refused in manifest.refused]


@pytest.mark.parametrize("garbage", [b"\xff" * 3000, b"x" * 511, b"PK\x03\x04" * 600])
def test_garbage_is_a_problem_and_no_crash(tmp_path: Path, garbage: bytes) -> None:
    """An archive that is none leaves nothing, and says so."""
    collector, manifest = collect(tmp_path, garbage, "**")

    assert collector.result is None
    assert "cannot be read" in manifest.problem
    assert {} == tree(tmp_path)


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"D", b"M", b"V", b"N", b"\xff"])
def test_what_our_command_never_writes_ends_the_reading(tmp_path: Path, kind: bytes) -> None:
    """Headers of other formats could say another size, or another name, for what follows them."""
    info = tarfile.TarInfo("odd")
    info.type = kind
    data = archive(("before", b"1", {})).rstrip(b"\0").ljust(1024, b"\0")

    _, manifest = collect(
        tmp_path, data + info.tobuf(tarfile.GNU_FORMAT) + archive(("a", b"", {})), "**"
    )

    assert ["before"] == [file.path for file in manifest.files]
    assert "cannot be read: it has a member of type" in manifest.problem


@settings(max_examples=50)
@given(data=st.binary(max_size=3000), cut=st.integers(0, 4000), chunk=st.integers(1, 700))
def test_no_stream_gets_out(tmp_path_factory: pytest.TempPathFactory, data, cut, chunk) -> None:  # type: ignore[no-untyped-def]
    """Truncated and damaged archives never raise, and write only below the directory."""
    base = tmp_path_factory.mktemp("c")
    whole = archive(("result.json", b"{}", {}), ("a/b", b"content" * 50, {}))
    damaged = whole[:cut] + data + whole[cut + len(data) :]

    collect(base, damaged, "**", chunk=chunk)

    assert set(os.listdir(base)) <= {"artifacts", "log"}


def test_a_name_comes_once(tmp_path: Path) -> None:
    """The first of one name counts; a second log, result or artifact changes nothing."""
    names = ("guest.log", "result.json", "a")
    data = pax_archive(*[(name, text, {}) for text in (b"1", b"2") for name in names])

    manifest = collect_all(tmp_path, data)

    assert b"1" == (tmp_path / "guest.log").read_bytes()
    assert b"1" == (tmp_path / "artifacts" / "a").read_bytes()
    assert ["a"] == [refused.path for refused in manifest.refused]
    assert "" == manifest.problem


@pytest.mark.parametrize("name", [".", "é" * 200])
def test_a_name_that_the_host_cannot_hold_is_refused_alone(tmp_path: Path, name: str) -> None:
    """The files after it are taken all the same."""
    manifest = collect_all(tmp_path, pax_archive((name, b"x", {}), ("b", b"b", {})))

    assert [name] == [refused.path for refused in manifest.refused]
    assert ["b"] == [file.path for file in manifest.files]
