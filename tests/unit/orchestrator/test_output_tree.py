"""The tree that comes out of a guest: what is taken, and what makes its job fail."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.outputs import tree
from orchestrator.outputs.tree import BadOutput, TreeWriter
from orchestrator.snapshot.content import Access

Entry = tuple[str, bytes, str | bytes]  # name, tar's type, content or target


def archive(entries: Iterable[Entry]) -> bytes:
    """A GNU tar archive of these entries, in this order, whatever their names are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as into:
        for name, kind, what in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mtime, member.mode = kind, 1_000_000_000, 0o755
            if isinstance(what, bytes):
                member.size = len(what)
                into.addfile(member, io.BytesIO(what))
            else:
                member.linkname = what
                into.addfile(member)
    return packed.getvalue()


def unpack(root: Path, data: bytes, *, piece: int = 700, max_bytes: int = 1 << 20) -> TreeWriter:
    """Unpack an archive that comes in pieces."""
    root.mkdir()
    access = Access((os.getuid(), os.getgid()))
    writer = TreeWriter(root, access=access, max_bytes=max_bytes)
    try:
        for start in range(0, len(data), piece):
            writer.feed(data[start : start + piece])
        writer.finish()
    finally:
        writer.close()
    return writer


FILE, DIRECTORY, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE


def test_files_directories_and_links_are_made(tmp_path: Path) -> None:
    """With times and modes; a directory that is not listed is made too."""
    long = "/".join(["d" * 100] * 3)
    writer = unpack(
        tmp_path / "t",
        archive(
            [
                (".", DIRECTORY, ""),
                ("./empty", DIRECTORY, ""),
                ("./a/b", FILE, b"content"),
                (f"./{long}/c", FILE, b""),
                ("./absolute", LINK, "/etc/passwd"),
                ("./far", LINK, f"../../{long}/x"),
            ]
        ),
    )

    made = tmp_path / "t" / "a" / "b"
    assert b"content" == made.read_bytes()
    assert (1_000_000_000, 0o755) == (made.stat().st_mtime, stat.S_IMODE(made.stat().st_mode))
    assert "/etc/passwd" == os.readlink(tmp_path / "t" / "absolute")
    assert f"../../{long}/x" == os.readlink(tmp_path / "t" / "far")
    assert (tmp_path / "t" / "empty").is_dir()
    assert (tmp_path / "t" / long / "c").is_file()
    assert (7, 9) == (writer.bytes, writer.entries)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("../x", FILE, b"")], "it has the name '../x'"),
        ([("/etc/x", FILE, b"")], "it has the name '/etc/x'"),
        ([("a/../../x", FILE, b"")], "it has the name"),
        ([("./a//b", FILE, b"")], "it has the name"),
        ([("a", FILE, b""), ("a", FILE, b"")], "it has the name 'a' twice"),
        ([("a", FILE, b""), ("a/b", FILE, b"")], "it has the name 'a' twice"),
        ([("a/b", FILE, b""), ("a", FILE, b"")], "it has the name 'a' twice"),
        ([("a", LINK, "x"), ("a", LINK, "y")], "it has the name 'a' twice"),
        ([("a", LINK, "/tmp"), ("a/b", FILE, b"")], "it has the name 'a' twice"),
        ([("a", FILE, b""), ("a", LINK, "x")], "it has the name 'a' twice"),
        ([("p", tarfile.FIFOTYPE, "")], "a device, a pipe"),
        ([("c", tarfile.CHRTYPE, "")], "a device, a pipe"),
        ([("b", tarfile.BLKTYPE, "")], "a device, a pipe"),
        ([("a", FILE, b""), ("h", tarfile.LNKTYPE, "a")], "a hard link"),
        ([("h", tarfile.LNKTYPE, "/etc/shadow")], "a hard link"),
        ([("s", tarfile.GNUTYPE_SPARSE, b"")], "a device, a pipe or a sparse file"),
        ([("x" * 256, FILE, b"")], "it has the name"),
        ([("", FILE, b"")], "not a directory"),
        ([("x", b"x", b"")], "cannot be read"),
    ],
)
def test_what_an_output_must_not_have(tmp_path: Path, entries: list[Entry], words: str) -> None:
    """It is refused by name, and nothing was made outside."""
    with pytest.raises(BadOutput, match=words.replace("(", r"\(")):
        unpack(tmp_path / "t", archive(entries))

    assert ["t"] == os.listdir(tmp_path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Whatever comes first: links are made when everything else is there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for order in (1, -1):
        entries: list[Entry] = [("a", LINK, str(outside)), ("a/b", FILE, b"x")]
        with pytest.raises(BadOutput):
            unpack(tmp_path / f"t{order}", archive(entries[::order]))

    assert [] == os.listdir(outside)


def test_size_and_number_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the headers say, before any of it is written."""
    bomb = archive([("a", FILE, b"x" * 2000)])
    with pytest.raises(BadOutput, match="it has more than 1000 B"):
        unpack(tmp_path / "a", bomb, max_bytes=1000)
    assert 0 == sum(path.stat().st_size for path in (tmp_path / "a").iterdir())

    monkeypatch.setattr(tree, "MAX_ENTRIES", 10)
    with pytest.raises(BadOutput, match="it has more than 10 files"):
        unpack(tmp_path / "b", archive((str(n), FILE, b"") for n in range(11)))
    # Directories that the archive does not list count as those that it does.
    with pytest.raises(BadOutput, match="it has more than 10 files"):
        unpack(tmp_path / "c", archive([("/".join("d" * 11), LINK, "x")]))
    assert 10 == sum(len(names) for _, names, _ in os.walk(tmp_path / "c"))

    monkeypatch.setattr(tree, "MAX_NAMES_BYTES", 500)
    with pytest.raises(BadOutput, match="its names have more than 500 B"):
        unpack(tmp_path / "d", archive((f"{n}{'x' * 99}", LINK, "y" * 99) for n in range(3)))


def test_a_tree_is_no_deeper_than_what_can_be_deleted(tmp_path: Path) -> None:
    """With what gc deletes it with, in which each directory is a call."""
    writer = unpack(tmp_path / "t", archive([("/".join("d" * tree.MAX_DEPTH), FILE, b"")]))
    assert writer.entries == tree.MAX_DEPTH
    shutil.rmtree(tmp_path / "t")

    with pytest.raises(BadOutput, match="it has directories nested more than 200 deep: 'd/d"):
        unpack(tmp_path / "u", archive([("/".join("d" * 1900), FILE, b"")]))
    assert [] == os.listdir(tmp_path / "u")


@pytest.mark.parametrize("time", [-1, -(1 << 50), 1 << 34, 1 << 80])
def test_any_time_is_taken(tmp_path: Path, time: int) -> None:
    """Files of before 1970 keep theirs; those that no file system has are bounded."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as into:
        for name, kind in (("f", FILE), ("l", LINK)):
            member = tarfile.TarInfo(name)
            member.type, member.mtime, member.linkname = kind, time, "f"
            into.addfile(member)
    unpack(tmp_path / "t", packed.getvalue())

    made = (tmp_path / "t" / "f").stat().st_mtime
    assert made == time if time == -1 else (made < 0) == (time < 0)


def test_an_archive_that_breaks_off_is_no_tree(tmp_path: Path) -> None:
    """At any byte before its end mark."""
    whole = archive([("a", FILE, b"x" * 600), ("b", LINK, "a")])
    for number, size in enumerate((0, 100, 512, 1000, 1536, 2048)):
        with pytest.raises(BadOutput, match="breaks off"):
            unpack(tmp_path / str(number), whole[:size])


NAMES = st.text(st.sampled_from("ab./\\\u00e9\udc80\n"), min_size=0, max_size=12)
ENTRIES = st.lists(
    st.tuples(
        NAMES,
        st.sampled_from([FILE, DIRECTORY, LINK, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
        st.sampled_from(["/", "..", "a", "../../x"]),
    ),
    max_size=8,
)


@given(ENTRIES, st.integers(1, 2000))
def test_whatever_comes_stays_inside(entries: list[Entry], piece: int) -> None:
    """Any names and kinds in any order: a tree below its root, or refused."""
    import tempfile

    with tempfile.TemporaryDirectory() as base:
        place = Path(base)
        try:
            unpack(place / "t", archive(entries), piece=piece)
        except BadOutput:
            pass
        assert ["t"] == os.listdir(place)
