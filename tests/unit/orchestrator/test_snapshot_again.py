"""The second snapshot of a workspace: only what changed is read and copied."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.snapshot import tree
from orchestrator.snapshot.snapshot import Snapshot, publish
from tests.unit.orchestrator.workspaces import OWNER, names


class Publisher:
    """Publishes one workspace with its index, and notes which files are read or copied."""

    def __init__(self, workspace: Path, base: Path) -> None:
        self.workspace = workspace
        self.snapshots = base / "snapshots"
        self.index = base / "indexes" / "one"
        self.snapshots.mkdir(exist_ok=True)
        self.read: list[str] = []
        self.copied: list[str] = []

    async def publish(self) -> Snapshot:
        self.read.clear()
        self.copied.clear()
        return await publish(self.workspace, self.snapshots, owner=OWNER, index=self.index)


@pytest.fixture
def publisher(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A publisher of the files a, b and d/c, which are old enough to be believed."""
    for name in ("a", "b", "d/c"):
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).write_text(name)
    made = Publisher(workspace, tmp_path)

    def noted(noted: list[str], name: str) -> None:
        real: Callable[..., object] = getattr(tree, name)

        def call(path: bytes, *args: object) -> object:
            noted.append(os.path.relpath(os.fsdecode(path), workspace))
            return real(path, *args)

        monkeypatch.setattr(tree, name, call)

    noted(made.read, "digest")
    noted(made.copied, "copy_file")
    real_time = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_time() + 10_000_000_000)
    return made


async def test_an_unchanged_tree_is_not_read(publisher: Publisher) -> None:
    """Neither is it copied, and the index stays as it is."""
    first = await publisher.publish()
    written = publisher.index.stat().st_ino
    second = await publisher.publish()

    assert first == second
    assert ([], []) == (publisher.read, publisher.copied)
    assert written == publisher.index.stat().st_ino


async def test_only_changed_files_are_copied(publisher: Publisher) -> None:
    """All others are the previous snapshot's, with their times; that snapshot does not change."""
    first = await publisher.publish()
    old = (first.path / "a").stat()
    (publisher.workspace / "d" / "c").write_text("new")
    os.utime(publisher.workspace / "a", (1, 1))  # read again, with the same bytes

    second = await publisher.publish()

    assert ["a", "d/c"] == publisher.read
    assert ["d/c"] == publisher.copied
    assert (old.st_ino, old.st_mtime_ns) == (
        (second.path / "a").stat().st_ino,
        (second.path / "a").stat().st_mtime_ns,
    )
    assert ("d/c", "new") == ((first.path / "d/c").read_text(), (second.path / "d/c").read_text())


async def test_a_file_with_another_mode_is_a_file_of_its_own(publisher: Publisher) -> None:
    """The copy in the previous snapshot keeps its mode."""
    first = await publisher.publish()
    (publisher.workspace / "a").chmod(0o755)

    second = await publisher.publish()

    modes = [stat.S_IMODE((one.path / "a").stat().st_mode) for one in (first, second)]
    assert [0o644, 0o755] == modes
    assert ["a"] == publisher.copied


@pytest.mark.parametrize("change", ["content", "times", "inode"])
async def test_a_file_is_read_when_anything_of_its_status_changed(
    publisher: Publisher, change: str
) -> None:
    """The same size and modification time do not suffice."""
    await publisher.publish()
    path = publisher.workspace / "a"
    status = path.stat()
    if change == "content":
        path.write_text("x")
    elif change == "inode":
        (publisher.workspace / "new").write_text("x")
        (publisher.workspace / "new").rename(path)
    if change != "times":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(path)

    snapshot = await publisher.publish()

    assert ["a"] == publisher.read
    assert ("a" if change == "times" else "x") == (snapshot.path / "a").read_text()


async def test_a_file_that_was_just_written_is_read_once_more(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system with coarse times, it may have been written twice with one time."""
    latest = max(path.stat().st_ctime_ns for path in publisher.workspace.rglob("*"))
    monkeypatch.setattr(time, "time_ns", lambda: latest + 1)
    await publisher.publish()
    await publisher.publish()
    at_once = sorted(publisher.read)
    monkeypatch.setattr(time, "time_ns", lambda: latest + 3_000_000_000)
    await publisher.publish()
    later = sorted(publisher.read)
    await publisher.publish()

    assert (["a", "b", "d/c"], ["a", "b", "d/c"], []) == (at_once, later, publisher.read)


async def test_a_just_written_tree_is_linked_all_the_same(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read once more, and has the same bytes, is not copied."""
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    await publisher.publish()
    (publisher.workspace / "a").write_text("new")
    await publisher.publish()

    assert ["a"] == publisher.copied


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign", "empty", "newer"])
async def test_an_index_that_cannot_be_used_is_ignored(
    publisher: Publisher, tmp_path: Path, damage: str
) -> None:
    """Everything is read, and a good index takes its place."""
    first = await publisher.publish()
    data = publisher.index.read_bytes()
    if damage == "torn":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data = data[:-1] + bytes([data[-1] ^ 1])
    elif damage == "empty":
        data = b""
    elif damage == "newer":
        data = data.replace(b"pikaci index 1", b"pikaci index 2")
    else:
        publisher.workspace.rename(tmp_path / "other")
        publisher.workspace = tmp_path / "other"
    publisher.index.write_bytes(data)

    second = await publisher.publish()
    read = sorted(publisher.read)
    await publisher.publish()

    assert first == second
    assert (3, []) == (len(read), publisher.read)


async def test_an_index_is_private(publisher: Publisher) -> None:
    """It has the names of all files."""
    await publisher.publish()

    assert 0o600 == stat.S_IMODE(publisher.index.stat().st_mode)
    assert [publisher.index.name] == os.listdir(publisher.index.parent)


async def test_an_index_that_cannot_be_written_costs_only_time(publisher: Publisher) -> None:
    """The snapshot is what counts."""
    publisher.index.parent.write_text("in the way")

    snapshot = await publisher.publish()

    assert {"a", "b", "d/c"} == names(snapshot)


async def test_without_the_previous_snapshot_everything_is_copied(publisher: Publisher) -> None:
    """It may have been deleted; unchanged files need not be read for the hash."""
    first = await publisher.publish()
    shutil.rmtree(first.path)
    (publisher.workspace / "a").write_text("new")

    second = await publisher.publish()

    assert {"a", "b", "d/c"} == names(second)
    assert ["a"] == publisher.read
    assert ["a", "b", "d/c"] == publisher.copied


async def test_files_that_cannot_be_linked_are_copied(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may have no hard links, or no more of them for one file."""
    await publisher.publish()
    (publisher.workspace / "a").write_text("new")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("too many links")

    monkeypatch.setattr(os, "link", refuse)
    await publisher.publish()

    assert ["a", "b", "d/c"] == publisher.copied


async def test_deleting_a_snapshot_leaves_its_files_to_others(publisher: Publisher) -> None:
    """A hard link is as good as the first name."""
    first = await publisher.publish()
    (publisher.workspace / "a").write_text("new")
    second = await publisher.publish()
    shutil.rmtree(first.path)

    assert "b" == (second.path / "b").read_text()
    assert "d/c" == (second.path / "d" / "c").read_text()


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "d/c", "d/e"]),
        st.sampled_from(["write", "touch", "mode", "delete", "link", "publish"]),
        st.text("xy", max_size=2),
    ),
    max_size=10,
)


@settings(max_examples=40)
@given(edits=EDITS)
def test_an_index_changes_no_snapshot(tmp_path: Path, edits: list[tuple[str, str, str]]) -> None:
    """Whatever happened between two snapshots, hash and files are those of a fresh copy."""
    base = tmp_path / "t"
    shutil.rmtree(base, ignore_errors=True)
    workspace = base / "workspace"
    (workspace / "d").mkdir(parents=True)
    (base / "fresh").mkdir()
    known = Publisher(workspace, base)

    async def compare() -> None:
        ours = await known.publish()
        fresh = await publish(workspace, base / "fresh", owner=OWNER)
        assert ours.hash == fresh.hash
        assert content(ours.path) == content(fresh.path)

    for name, edit, text in [*edits, ("a", "publish", "")]:
        path = workspace / name
        if edit == "publish":
            trio.run(compare)
        elif edit in ("delete", "link") or path.is_symlink():
            path.unlink(missing_ok=True)
            if edit == "link":
                path.symlink_to(text or "nowhere")
        elif edit == "write" or not path.exists():
            path.write_text(text)
        elif edit == "touch":
            os.utime(path, (1, 1))
        else:
            path.chmod(0o755 if text else 0o644)


def content(directory: Path) -> dict[str, object]:
    """All files and links below a directory, with what counts of them."""
    found: dict[str, object] = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        found[str(path.relative_to(directory))] = what, status.st_mode, status.st_uid
    return found


async def test_a_file_that_changes_while_it_is_copied_is_what_was_copied(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash is that of the copy, and so is what the index knows."""
    real = tree.copy_file

    def change(path: bytes, *args: Any) -> object:
        if path.endswith(b"/a"):
            (publisher.workspace / "a").write_text("changed")
        if path.endswith(b"/b"):
            (publisher.workspace / "b").unlink()
        return real(path, *args)

    monkeypatch.setattr(tree, "copy_file", change)
    snapshot = await publisher.publish()
    monkeypatch.setattr(tree, "copy_file", real)
    again = await publisher.publish()

    assert {"a", "d/c"} == names(snapshot)
    assert "changed" == (snapshot.path / "a").read_text()
    assert (snapshot.hash, []) == (again.hash, publisher.read)
