"""Snapshots: what goes in, what it is called, and who can read it."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.snapshot import size
from orchestrator.snapshot.progress import Progress
from orchestrator.snapshot.snapshot import Snapshot, publish
from tests.unit.orchestrator.workspaces import OWNER, commit_all, git, names


@pytest.mark.parametrize("repository", [True, False], ids=["repository", "plain"])
async def test_ignored_files_stay_out(workspace: Path, snapshots: Path, repository: bool) -> None:
    """.gitignore counts in a repository and without one; tracked files always belong."""
    (workspace / ".gitignore").write_text("*.o\nbuild/\n")
    (workspace / "a.c").touch()
    (workspace / "a.o").touch()
    (workspace / "build").mkdir()
    (workspace / "build" / "out").touch()
    expected = {".gitignore", "a.c"}
    if repository:
        git(workspace, "init", "-q")
        (workspace / "tracked.o").touch()
        git(workspace, "add", "-f", ".gitignore", "tracked.o")
        expected.add("tracked.o")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert expected == names(snapshot)


async def test_a_list_adds_ignored_files(workspace: Path, snapshots: Path) -> None:
    """`include` takes what git ignores, directories whole, and nothing outside."""
    (workspace / ".gitignore").write_text("gen/\n*.bin\n")
    (workspace / "gen" / "deep").mkdir(parents=True)
    (workspace / "gen" / "deep" / "x").touch()
    (workspace / "y.bin").touch()

    snapshot = await publish(workspace, snapshots, include=("gen", "*.bin"), owner=OWNER)

    assert {".gitignore", "gen/deep/x", "y.bin"} == names(snapshot)
    with pytest.raises(UsageError, match="leaves the workspace"):
        await publish(workspace, snapshots, include=("../*",), owner=OWNER)


async def test_git_and_the_state_root_never_go_in(workspace: Path) -> None:
    """Not even when the state root lies in the workspace, or a list asks for them."""
    git(workspace, "init", "-q")
    state = workspace / "state"
    (state / "snapshots").mkdir(parents=True)
    (state / "journal").touch()
    (workspace / "a").touch()

    snapshot = await publish(
        workspace, state / "snapshots", own=(state,), include=(".git", "state"), owner=OWNER
    )

    assert {"a"} == names(snapshot)


async def test_modes_links_and_bytes_are_kept(workspace: Path, snapshots: Path) -> None:
    """The exec bit, a mode of 600, links that lead nowhere, and names of any bytes."""
    (workspace / "run.sh").write_text("#!/bin/sh\n")
    (workspace / "run.sh").chmod(0o755)
    (workspace / "private").write_text("p")
    (workspace / "private").chmod(0o600)
    (workspace / "link").symlink_to("/no/such/place")
    (workspace / "dir-link").symlink_to(".")
    odd = os.fsencode(workspace) + b"/odd\xff\nname"
    with open(odd, "wb") as file:
        file.write(b"\0\xff")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert 0o755 == stat.S_IMODE((snapshot.path / "run.sh").stat().st_mode)
    assert 0o600 == stat.S_IMODE((snapshot.path / "private").stat().st_mode) & 0o700
    assert "/no/such/place" == os.readlink(snapshot.path / "link")
    assert "." == os.readlink(snapshot.path / "dir-link")
    with open(os.fsencode(snapshot.path) + b"/odd\xff\nname", "rb") as file:
        assert b"\0\xff" == file.read()


async def test_the_job_s_user_can_read_all_of_it(workspace: Path, snapshots: Path) -> None:
    """Root gives the files to the job's user; anybody else opens the copy for reading."""
    (workspace / "d").mkdir()
    (workspace / "d" / "private").write_text("p")
    (workspace / "d" / "private").chmod(0o600)

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    for path in (snapshot.path, snapshot.path / "d", snapshot.path / "d" / "private"):
        status = path.stat()
        others = status.st_mode & 0o004
        assert OWNER == (status.st_uid, status.st_gid) if os.geteuid() == 0 else others


@pytest.mark.parametrize("kind", ["fifo", "socket"])
async def test_what_is_no_file_is_refused_by_name(
    workspace: Path, snapshots: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe or socket deep in the tree is named; an ignored one stays out in silence."""
    (workspace / "empty" / "deep").mkdir(parents=True)
    special = workspace / "empty" / "deep" / "odd.special"
    if kind == "fifo":
        os.mkfifo(special)
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(special.parent)  # a socket's path must be short
            listener.bind("odd.special")

    with pytest.raises(UsageError, match=r"empty/deep/odd\.special"):
        await publish(workspace, snapshots, owner=OWNER)

    (workspace / ".gitignore").write_text("*.special\n")
    assert {".gitignore"} == names(await publish(workspace, snapshots, owner=OWNER))


async def test_an_unchanged_tree_gives_the_same_snapshot(workspace: Path, snapshots: Path) -> None:
    """No second copy is made; times and owners do not count."""
    (workspace / "a").write_text("1")
    first = await publish(workspace, snapshots, owner=OWNER)
    inode = first.path.stat().st_ino
    os.utime(workspace / "a", (1, 1))

    second = await publish(workspace, snapshots, owner=OWNER)

    assert (first, inode) == (second, second.path.stat().st_ino)
    assert [first.hash] == os.listdir(snapshots)


async def test_the_hash_of_a_tree_never_changes_its_meaning(
    workspace: Path, snapshots: Path
) -> None:
    """Snapshots that older versions published are found again."""
    (workspace / "d").mkdir()
    (workspace / "d" / "run").write_text("#!/bin/sh\n")
    (workspace / "d" / "run").chmod(0o755)
    (workspace / "link").symlink_to("d/run")
    (workspace / "empty").touch()
    (workspace / "empty").chmod(0o644)

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert "f0e9d4fe15a4776f1396840e2061da75185faadd446cee417b1631ba7b99f39d" == snapshot.hash


@pytest.mark.parametrize("ends", ["in a hole", "in data"])
async def test_holes_stay_holes(workspace: Path, snapshots: Path, ends: str) -> None:
    """A large sparse file is its bytes, and takes up no more of the disk than it did."""
    size = 2**25
    with open(workspace / "disk.img", "wb") as file:
        file.seek(2**20)
        file.write(b"first")
        file.seek(2**24 + 12345)
        file.write(b"second")
        file.truncate(size)
        if ends == "in data":
            file.seek(size)
            file.write(b"third")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    copy = snapshot.path / "disk.img"
    assert copy.stat().st_blocks * 512 < 2**20
    with open(copy, "rb") as ours, open(workspace / "disk.img", "rb") as theirs:
        assert (
            hashlib.file_digest(ours, "md5").digest() == hashlib.file_digest(theirs, "md5").digest()
        )
    # With the same bytes and no holes it is the same tree.
    hash_ = snapshot.hash
    shutil.copyfile(workspace / "disk.img", workspace / "full")
    (workspace / "full").replace(workspace / "disk.img")
    assert (workspace / "disk.img").stat().st_blocks * 512 >= size
    assert hash_ == (await publish(workspace, snapshots, owner=OWNER)).hash


async def test_two_publishers_of_one_tree_both_succeed(workspace: Path, snapshots: Path) -> None:
    """They end with one snapshot, and nothing unfinished beside it."""
    for number in range(200):
        (workspace / str(number)).write_text(str(number))
    results: list[Snapshot] = []

    async def one() -> None:
        results.append(await publish(workspace, snapshots, owner=OWNER))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)

    assert 1 == len({result.hash for result in results})
    assert [results[0].hash] == os.listdir(snapshots)


NAMES = st.text("abc./é", min_size=1, max_size=4).filter(
    lambda name: all(part not in ("", ".", "..") for part in name.split("/"))
)
TREES = st.dictionaries(
    NAMES,
    st.tuples(st.sampled_from(["file", "exec", "link"]), st.text("xy", max_size=2)),
    max_size=4,
).filter(lambda tree: not any(a != b and b.startswith(f"{a}/") for a in tree for b in tree))


@settings(max_examples=40)
@given(first=TREES, second=TREES)
def test_hashes_are_equal_just_when_trees_are(tmp_path: Path, first, second) -> None:  # type: ignore[no-untyped-def]
    """Names, bytes, modes and link targets count, and nothing else."""
    base = tmp_path / "t"
    shutil.rmtree(base, ignore_errors=True)
    hashes = []
    for number, tree in enumerate((first, second)):
        root = base / f"tree-{number}"
        root.mkdir(parents=True)
        for name, (kind, content) in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                path.symlink_to(content or "nowhere")
            else:
                path.write_text(content)
                path.chmod(0o755 if kind == "exec" else 0o644)
        (base / "snapshots").mkdir(exist_ok=True)

        async def once(root: Path = root) -> Snapshot:
            return await publish(root, base / "snapshots", owner=OWNER)

        hashes.append(trio.run(once).hash)

    normal = [
        {
            name: (kind, content or "nowhere" if kind == "link" else content)
            for name, (kind, content) in tree.items()
        }
        for tree in (first, second)
    ]
    assert (normal[0] == normal[1]) == (hashes[0] == hashes[1])


async def test_a_socket_in_the_state_root_is_no_objection(workspace: Path, snapshots: Path) -> None:
    """A living run listens on a socket there, and the next one must not stumble over it."""
    state = workspace / "state"
    state.mkdir()
    os.mkfifo(state / "pipe")
    (workspace / "a").write_text("a")

    snapshot = await publish(workspace, snapshots, own=(state,), owner=(1000, 100))

    assert not (snapshot.path / "state").exists()


@pytest.mark.parametrize("glob", ["**x", "."])
async def test_an_include_that_is_no_glob_is_a_usage_error(
    workspace: Path, snapshots: Path, glob: str
) -> None:
    """It is named, and nothing crashes."""
    with pytest.raises(UsageError, match="snapshot.include"):
        await publish(workspace, snapshots, include=(glob,), owner=(1000, 100))


async def test_an_include_does_not_reach_through_a_link(
    workspace: Path, snapshots: Path, tmp_path: Path
) -> None:
    """The link itself is kept; what it leads to stays outside."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("s")
    (workspace / "link").symlink_to(elsewhere)

    snapshot = await publish(workspace, snapshots, include=("link/*",), owner=(1000, 100))

    assert (snapshot.path / "link").is_symlink()


async def test_files_can_be_left_out(workspace: Path, snapshots: Path) -> None:
    """`exclude` counts for tracked, included and special files; a directory takes all below it."""
    for name in ("src/a.c", "src/a.md", "data/big/x", "data/small", "gen/y", ".gitignore"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text("gen/\n" if name == ".gitignore" else name)
    commit_all(workspace)
    os.mkfifo(workspace / "data" / "big" / "pipe")

    snapshot = await publish(
        workspace,
        snapshots,
        include=("gen",),
        exclude=("data/big/", "**/*.md", "gen/*"),
        owner=OWNER,
    )

    assert {".gitignore", "src/a.c", "data/small"} == names(snapshot)
    assert (False, ()) == (snapshot.dirty, snapshot.warnings)


async def test_a_glob_that_matches_nothing_is_a_warning(workspace: Path, snapshots: Path) -> None:
    """It names the key and the glob. A directory without files is nothing."""
    (workspace / "a").touch()
    (workspace / "empty").mkdir()

    snapshot = await publish(
        workspace, snapshots, include=("a", "empty"), exclude=("dist/**", "A"), owner=OWNER
    )

    assert (
        "snapshot.include: 'empty' matches no file",
        "snapshot.exclude: 'dist/**' matches no file",
        "snapshot.exclude: 'A' matches no file",
    ) == snapshot.warnings


@pytest.mark.parametrize("glob", ["/etc", "../x", "a/../../b"])
async def test_a_glob_that_leaves_the_workspace_is_refused(
    workspace: Path, snapshots: Path, glob: str
) -> None:
    """In `exclude` it would only be a mistake; it is told all the same."""
    with pytest.raises(UsageError, match="snapshot.exclude: .*leaves the workspace"):
        await publish(workspace, snapshots, exclude=(glob,), owner=OWNER)
    assert [] == os.listdir(snapshots)


async def test_a_large_snapshot_names_its_largest_directories(
    workspace: Path, snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By bytes, or by files when it is their number; what is nearly everything is looked into."""
    for name, length in (("d/data/raw/x", 5000), ("d/data/y", 3000), ("d/c", 50), ("a", 90)):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(b"x" * length)
    small = await publish(workspace, snapshots, owner=OWNER)
    monkeypatch.setattr(size, "LARGE_BYTES", 8000)
    (by_bytes,) = (await publish(workspace, snapshots, owner=OWNER)).warnings
    monkeypatch.setattr(size, "LARGE_BYTES", 9000)
    monkeypatch.setattr(size, "LARGE_FILES", 3)
    (by_files,) = (await publish(workspace, snapshots, owner=OWNER)).warnings

    assert () == small.warnings
    assert (
        "4 files, 7.9 KiB; the largest parts are d/data/raw (4.9 KiB), d/data/y (2.9 KiB)"
        in by_bytes
    )
    assert "the largest parts are d (3 files), a (1 file)" in by_files
    assert "`exclude` in [snapshot]" in by_bytes


async def test_progress_counts_files_and_bytes(workspace: Path, snapshots: Path) -> None:
    """At the end it says what was copied."""
    for name in ("a", "b"):
        (workspace / name).write_bytes(b"x" * 100)
    progress = Progress()

    await publish(workspace, snapshots, owner=OWNER, progress=progress)

    assert Progress("copying", files=2, total=2, size=200) == progress
