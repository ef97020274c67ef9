"""A tree as a backup of a volume: what GNU tar, which Incus unpacks it with, makes of it."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.hosts import tar
from orchestrator.hosts.backup import archive
from states.errors import PikaciError

OWNER = (os.geteuid(), os.getegid())  # tar may give files to others only as root
CONFIG = {"security.shifted": "true", "user.pikaci.tree": "abc"}


def packed(tree: Path) -> bytes:
    return gzip.decompress(b"".join(archive(tree, CONFIG, owner=OWNER)))


def unpacked(data: bytes, into: Path) -> Path:
    into.mkdir()
    unpack = ["tar", "--extract", "--preserve-permissions", f"--directory={into}"]
    subprocess.run(unpack, input=data, check=True, capture_output=True)
    return into / "backup" / "volume" / "tree"


def described(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that guests can see of a tree, but the times of links, which few tools can set."""
    found: dict[bytes, tuple[object, ...]] = {}
    base = os.fsencode(root)
    for parent, directories, files in os.walk(base):
        for name in (b"", *directories, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            what: object = None
            if stat.S_ISLNK(status.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                what = Path(os.fsdecode(path)).read_bytes()
            found[path[len(base) :]] = (status.st_mode, status.st_mtime_ns, what)
    return found


def test_names_modes_times_links_and_bytes_arrive(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "empty").mkdir(parents=True)
    base = os.fsencode(root) + b"/"
    for name in (
        b"\xff\xfe",
        b"a\nb",
        "ü☃".encode(),
        b"-rf",
        b"$(id)",
        b"n" * 255,
        b"x" * 100,
        b" ",
    ):
        Path(os.fsdecode(base + name)).write_bytes(name * 300)
    for mode in (0o600, 0o4755, 0o2750, 0o1644):
        made = root / f"{mode:o}"
        made.touch()
        made.chmod(mode)
    os.makedirs(base + b"/".join([b"d" * 200] * 15))
    for number, target in enumerate((b"/etc/passwd", b"../..", b"t/" * 1500, b"\xff", b"y" * 100)):
        os.symlink(target, base + b"link-%d" % number)
    times = (0, 1, -1_500_000_000, 1_234_567_890_123_456_789, 1 << 62)
    for number, when in enumerate(times):
        made = root / f"time-{number}"
        made.touch()
        os.utime(made, ns=(when, when))
    (root / "empty").chmod(0o1777)

    there = unpacked(packed(root), tmp_path / "there")

    assert described(root) == described(there)


def test_holes_are_neither_sent_nor_filled(tmp_path: Path) -> None:
    """A file that says it has a terabyte, and as many pieces as need several maps."""
    root = tmp_path / "root"
    root.mkdir()
    with (root / "holes").open("wb") as file:
        for number in range(60):
            file.seek(number << 24)
            file.write(b"%d" % number)
        file.truncate(1 << 40)
    with (root / "nothing").open("wb") as file:
        file.truncate(12345)

    data = packed(root)
    there = unpacked(data, tmp_path / "there")

    assert len(data) < 1 << 20
    assert bytes(12345) == (there / "nothing").read_bytes()
    for file in (there / "holes", root / "holes"):
        assert 1 << 40 == file.stat().st_size
        assert file.stat().st_blocks < 4096
        with file.open("rb") as opened:
            for number in range(60):
                opened.seek((number << 24) - 1 if number else 0)
                assert opened.read(4).strip(b"\0") == b"%d" % number


def test_all_belongs_to_the_owner_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = gzip.decompress(b"".join(archive(tmp_path, CONFIG, owner=(1000, 100))))

    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        owners = {one.name: (one.uid, one.gid) for one in read}

    assert {(1000, 100)} == {
        owners[name] for name in owners if name.startswith("backup/volume/tree")
    }


def test_the_index_comes_last_so_that_no_cut_archive_has_one(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_bytes(bytes(number * 100))
    data = packed(tmp_path)
    at = data.index(b"backup/index.yaml")

    with tarfile.open(fileobj=io.BytesIO(data)) as whole:
        *_, last = whole
        index = whole.extractfile(last)
        assert index is not None
        assert CONFIG == msgspec.json.decode(index.read())["config"]["volume"]["config"]

    assert last.name == "backup/index.yaml"
    assert at > len(data) - 4096
    assert data.count(b"backup/index.yaml") == 1


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)])
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, make: object) -> None:
    make(tmp_path / "odd")  # type: ignore[operator]

    with pytest.raises(PikaciError, match="odd' cannot be sent to another host"):
        packed(tmp_path)


def test_a_file_that_becomes_shorter_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(4 << 20))
    pieces = archive(tmp_path, CONFIG, owner=OWNER)
    next(pieces)
    next(pieces)

    os.truncate(file, 1 << 20)

    with pytest.raises(PikaciError, match="file' changed while it was sent"):
        list(pieces)


def test_a_file_beyond_eight_gibibytes_has_a_header() -> None:
    """Octal digits do not suffice."""
    entry = tar.Entry(b"large", tar.FILE, 0o644, 1 << 40)

    read = tarfile.TarInfo.frombuf(tar.header(entry, OWNER), "utf-8", "surrogateescape")

    assert 1 << 40 == read.size


@given(
    st.binary(min_size=1, max_size=3000).filter(lambda name: b"\0" not in name),
    st.binary(max_size=3000).filter(lambda name: b"\0" not in name),
    st.integers(-(1 << 62), 1 << 62),
)
def test_any_name_target_and_time_can_be_read_again(
    name: bytes, target: bytes, modified: int
) -> None:
    name = b"a" + name.replace(b"/", b"-")
    entry = tar.Entry(name, tar.LINK, 0o777, 0, modified, target)

    archived = io.BytesIO(tar.header(entry, OWNER) + tar.END)
    with tarfile.open(fileobj=archived, errors="surrogateescape") as read:
        (found,) = read

    assert (name, target) == (os.fsencode(found.name), os.fsencode(found.linkname))
    seconds = float(found.pax_headers.get("mtime", found.mtime))
    assert abs(seconds - modified / 10**9) < 1e-3 * max(1, abs(seconds) * 1e-9)
