"""Archives from guests that nobody should believe."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import socket
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.attempt.archive import Collector, Manifest, collect_command, unmatched
from orchestrator.attempt.result import GuestResult, parse_result
from orchestrator.attempt.tar_stream import Member, TarStream
from orchestrator.globs import GlobSet, any_of
from orchestrator.units import size

MAX_BYTES = 1 << 20
MAX_LOG_BYTES = 1 << 18


def archive(*members: tuple[str, bytes | None, dict[str, object]]) -> bytes:
    """A tar archive of (name, content, attributes of the header)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


def collect(
    base: Path, data: bytes, *globs: str, max_files: int = 10, chunk: int = 1 << 16
) -> tuple[Collector, Manifest]:
    collector = Collector(
        base / "artifacts",
        globs,
        max_bytes=MAX_BYTES,
        max_files=max_files,
        log_path=base / "log",
        max_log_bytes=MAX_LOG_BYTES,
    )
    for at in range(0, len(data), chunk):
        collector.feed(data[at : at + chunk])
    return collector, collector.finish()


def tree(base: Path) -> dict[str, bytes]:
    root = base / "artifacts"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if not path.is_dir()
    }


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


@pytest.mark.parametrize("garbage", [b"\xff" * 3000, b"x" * 511, b"PK\x03\x04" * 600])
def test_garbage_is_a_problem_and_no_crash(tmp_path: Path, garbage: bytes) -> None:
    """An archive that is none leaves nothing, and says so."""
    collector, manifest = collect(tmp_path, garbage, "**")

    assert collector.result is None
    assert "cannot be read" in manifest.problem
    assert {} == tree(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_endless_header_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    """A name of a gigabyte, or one that says so, ends the reading."""
    info = tarfile.TarInfo("././@LongLink")
    info.type = kind
    info.size = 1 << 30

    _, manifest = collect(tmp_path, info.tobuf() + b"x" * 5000, "**")

    assert "too large" in manifest.problem


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


@pytest.mark.parametrize(
    ("glob", "taken", "left"),
    [
        ("junit.xml", ["junit.xml"], ["junitxxml", "a/junit.xml"]),
        ("*.xml", ["a.xml", ".xml"], ["a/b.xml", "a.xmlx"]),
        ("reports/**", ["reports/a", "reports/b/c"], ["report/a", "xreports/a"]),
        ("**/*.xml", ["a.xml", "a/b/c.xml"], ["a.txt"]),
        ("reports", ["reports/deep/a"], ["reports2"]),
        ("a?c", ["abc"], ["a/c", "abbc"]),
        ("[a-c]x", ["bx"], ["dx"]),
        ("[!a]x", ["bx"], ["ax", "/x"]),
        ("a[", ["a["], ["a"]),
        ("a+(b)$^.|{1}\\", ["a+(b)$^.|{1}\\"], ["a", "aab"]),
        ("ü*", ["üb"], ["b"]),
    ],
)
def test_globs_mean_the_same_in_guest_and_host(
    tmp_path: Path, glob: str, taken: list[str], left: list[str]
) -> None:
    """What find takes in the guest is what the host takes."""
    for name in taken + left:
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.touch()
    names = sorted({*taken, *(name for name in left if not name.startswith("/"))})

    regex = rf"\./({any_of((glob,))})"
    find = ["find", ".", "-regextype", "posix-extended", "-regex", regex, "-type", "f", "-print0"]
    found = subprocess.run(find, cwd=tmp_path, capture_output=True, check=True)
    in_guest = {os.fsdecode(name)[2:] for name in found.stdout.split(b"\0") if name}

    on_host = {name for name in names if GlobSet((glob,)).takes(name)}
    assert set(taken) == on_host
    assert set(taken) == in_guest


def test_the_guest_s_command_follows_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    """Run for real over a directory that a hostile job left."""
    artifacts = tmp_path / "artifacts"
    (artifacts / "reports").mkdir(parents=True)
    (artifacts / "result.json").write_bytes(b"{}")
    os.mkfifo(artifacts / "guest.log")
    os.mkfifo(artifacts / "reports" / "pipe")
    (artifacts / "reports" / "shadow").symlink_to("/etc/shadow")
    (artifacts / "reports" / "etc").symlink_to("/etc")
    (artifacts / "reports" / "two\nlines").touch()
    (artifacts / "reports" / "-rf").write_text("dash")
    (artifacts / "reports" / "empty").mkdir()
    command = collect_command(("reports/**",), want_log=True, max_log_bytes=MAX_LOG_BYTES)
    command[command.index("/artifacts")] = str(artifacts)

    done = subprocess.run(command, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    base = tmp_path / "host"
    base.mkdir()
    collector, manifest = collect(base, done.stdout, "reports/**")

    assert b"{}" == collector.result
    assert not (base / "log").exists()
    assert {"reports/-rf": b"dash"} == tree(base)
    refused = {file.path: file.reason for file in manifest.refused}
    assert {
        "guest.log",
        "reports/pipe",
        "reports/shadow",
        "reports/etc",
        "reports/two\\nlines",
    } == (set(refused))


RESULT = {
    "schema": 1,
    "contract": 1,
    "nonce": "n",
    "status": "passed",
    "exit_code": 0,
    "finished_at": "2026-01-01T00:00:00+00:00",
    "message": "test passed",
    "log_bytes": 1,
    "log_complete": True,
}


def test_a_whole_result_of_this_attempt_is_believed() -> None:
    """Fields that a newer runner adds are passed over."""
    result = parse_result(json.dumps({**RESULT, "more": 1}).encode(), "n")

    assert isinstance(result, GuestResult)
    assert "passed" == result.status


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "no result file"),
        (b"", "empty"),
        (b" \n", "empty"),
        (json.dumps(RESULT).encode()[:40], "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"[" * 60_000, "cannot be read"),
        (b'{"x":' * 10_000, "cannot be read"),
        (json.dumps({**RESULT, "nonce": "other"}).encode(), "not from this attempt"),
        (json.dumps({**RESULT, "contract": 2}).encode(), "contract 2"),
        (json.dumps({**RESULT, "status": "great"}).encode(), "cannot be read"),
        (json.dumps({**RESULT, "exit_code": 3}).encode(), "exit code 3"),
        (json.dumps({**RESULT, "status": "failed"}).encode(), "exit code 0"),
    ],
)
def test_any_other_result_has_a_reason(data: bytes | None, reason: str) -> None:
    """Missing, empty, torn, foreign and contradictory results are never a verdict."""
    found = parse_result(data, "n")

    assert isinstance(found, str)
    assert reason in found


def _tar(*members: tuple[str, bytes, dict[str, str]], end: bool = True) -> bytes:
    """An archive of regular files with these pax headers; without `end`, its last blocks miss."""
    buffer = io.BytesIO()
    form = tarfile.PAX_FORMAT if any(headers for _, _, headers in members) else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content, headers in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = headers
            archive.addfile(info, io.BytesIO(content))
        stop = archive.offset
    return buffer.getvalue() if end else buffer.getvalue()[:stop]


def _collected(tmp_path: Path, data: bytes) -> Manifest:
    collector = Collector(
        tmp_path / "artifacts",
        ("**",),
        max_bytes=1 << 20,
        max_files=10,
        log_path=tmp_path / "guest.log",
        max_log_bytes=MAX_LOG_BYTES,
    )
    collector.feed(data)
    return collector.finish()


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
    manifest = _collected(tmp_path, _tar(("big", b"1\n0\n1\n".ljust(512, b"\0"), headers)))

    assert () == manifest.files
    assert manifest.refused or manifest.problem
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("tail", [b"", b"no header!" * 200])
def test_an_archive_without_its_end_is_not_all(tmp_path: Path, tail: bytes) -> None:
    """Cut off between two members, or followed by garbage: said, not taken for the end."""
    manifest = _collected(tmp_path, _tar(("a", b"a", {}), end=False) + tail)

    assert ["a"] == [file.path for file in manifest.files]
    assert manifest.problem


def test_half_a_file_does_not_stay(tmp_path: Path) -> None:
    """A file that the archive breaks off in is neither on the host nor in the manifest."""
    manifest = _collected(tmp_path, _tar(("a", b"a" * 9000, {}))[:6000])

    assert manifest.problem
    assert () == manifest.files
    assert not (tmp_path / "artifacts" / "a").exists()


def test_a_name_comes_once(tmp_path: Path) -> None:
    """The first of one name counts; a second log, result or artifact changes nothing."""
    names = ("guest.log", "result.json", "a")
    data = _tar(*[(name, text, {}) for text in (b"1", b"2") for name in names])

    manifest = _collected(tmp_path, data)

    assert b"1" == (tmp_path / "guest.log").read_bytes()
    assert b"1" == (tmp_path / "artifacts" / "a").read_bytes()
    assert ["a"] == [refused.path for refused in manifest.refused]
    assert "" == manifest.problem


@pytest.mark.parametrize("name", [".", "é" * 200])
def test_a_name_that_the_host_cannot_hold_is_refused_alone(tmp_path: Path, name: str) -> None:
    """The files after it are taken all the same."""
    manifest = _collected(tmp_path, _tar((name, b"x", {}), ("b", b"b", {})))

    assert [name] == [refused.path for refused in manifest.refused]
    assert ["b"] == [file.path for file in manifest.files]


def test_a_range_that_runs_backwards_is_plain_text() -> None:
    """It names the file of just that name, and crashes nothing."""
    assert GlobSet(["[z-a]"]).takes("[z-a]")
    assert not GlobSet(["[z-a]"]).takes("b")


GLOBS = st.lists(
    st.sampled_from(["**/", "**", "*", "?", "[ab]", "[!a]", "a", "b", "/", "."]), max_size=8
).map("".join)


@given(st.lists(GLOBS, max_size=3), st.text("ab./c", max_size=10))
def test_the_host_matches_as_the_expression_says(globs: list[str], path: str) -> None:
    """The guest's `find` goes by the expression, and the host by a matcher of its own."""
    expected = re.fullmatch(any_of(tuple(globs)), path, re.DOTALL) is not None

    assert expected == GlobSet(globs).takes(path)


@pytest.mark.parametrize("glob", ["*a" * 40 + "*b", "**/*a" * 20 + "b", "**a" * 40, "?*" * 100])
def test_a_hostile_name_is_matched_in_linear_time(glob: str) -> None:
    """A backtracking matcher takes these names for longer than anybody waits."""
    globs = GlobSet([glob])
    for name in ("a" * 1000, "a/" * 500, "ab" * 500 + "c", "é" * 1000):
        globs.takes(name)


# Limits, and what is there when they are reached.


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


# What the guest's own command sends, run for real.


def guest_sends(artifacts: Path, *globs: str, max_bytes: int = 1 << 20) -> bytes:
    """What it prints over a directory, in place of the guest's."""
    command = collect_command(
        globs, want_log=True, max_bytes=max_bytes, max_log_bytes=MAX_LOG_BYTES
    )
    command[command.index("/artifacts")] = str(artifacts)
    done = subprocess.run(command, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    return done.stdout


NAMES = [
    "plain",
    "a/b c",
    "caf\u00e9",
    "\u202f\u3000",
    "\u6f22\u5b57",
    "\U0001f469\u200d\U0001f4bb",
]


def test_every_printable_name_is_collected(tmp_path: Path) -> None:
    """Also of two hard links to one file, and long ones; `?` is one character, of any language."""
    left = tmp_path / "left"
    names = [*NAMES, "d/" * 60 + "e" * 150]
    for name in names:
        (left / name).parent.mkdir(parents=True, exist_ok=True)
        (left / name).write_text(name)
    os.link(left / "plain", left / "linked")

    _, manifest = collect(tmp_path, guest_sends(left, "**"), "**")
    _, some = collect(tmp_path / "some", guest_sends(left, "caf?"), "caf?")

    assert {"linked": "plain", **{name: name for name in names}} == {
        name: content.decode() for name, content in tree(tmp_path).items()
    }
    assert ("", ()) == (manifest.problem, manifest.refused)
    assert ["caf\u00e9"] == [file.path for file in some.files]


def test_what_cannot_be_collected_is_refused_by_name(tmp_path: Path) -> None:
    """Names that are no text, or not as they look; sockets; and what is too large to be sent."""
    left = tmp_path / "left"
    left.mkdir()
    for name in (b"caf\xe9.txt", b"rtl\xe2\x80\xaegnp.exe", b"tab\tname", b"c1\xc2\x9b2J"):
        (left / os.fsdecode(name)).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left / "socket"))
    (left / "guest.log").touch()
    os.truncate(left / "guest.log", 1 << 40)
    (left / "sparse").touch()
    os.truncate(left / "sparse", 1 << 40)
    (left / "result.json").write_bytes(b"{}")
    (left / "good").write_bytes(b"g")

    collector, manifest = collect(tmp_path, guest_sends(left, "**"), "**")

    assert b"{}" == collector.result
    assert {"good": b"g"} == tree(tmp_path)
    assert "" == manifest.problem
    assert {
        "caf\\xe9.txt": "has a name that is not UTF-8",
        "rtl\\u202egnp.exe": "has a name that cannot be printed",
        "tab\\tname": "has a name that cannot be printed",
        "c1\\x9b2J": "has a name that cannot be printed",
        "socket": "is not a regular file",
        "guest.log": f"is larger than {MAX_LOG_BYTES} bytes",
        "sparse": f"is larger than {size(MAX_BYTES)}",
    } == {refused.path: refused.reason for refused in manifest.refused}


def test_names_behind_an_archive_are_believed_as_little(tmp_path: Path) -> None:
    """They are shown, in bounded number, and name nothing as collected."""
    hostile = b"".join(b"f./n%d\x1b[2J\0" % number for number in range(5000))
    data = archive(("a", b"a", {})) + hostile + b"cut off"

    _, manifest = collect(tmp_path, data, "**")

    assert ["a"] == [file.path for file in manifest.files]
    assert 1000 == len(manifest.refused)
    assert "n0\\x1b[2J" == manifest.refused[0].path
    assert "refused" in manifest.problem
