"""A part of a snapshot: what a job with `sources` sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.snapshot import part as parting
from orchestrator.snapshot.index import read_index
from orchestrator.snapshot.part import publish_part
from orchestrator.snapshot.snapshot import Snapshot, publish

OWNER = (os.getuid(), os.getgid())


async def published(base: Path) -> Snapshot:
    """A snapshot of a small workspace."""
    workspace = base / "workspace"
    (workspace / "src" / "deep").mkdir(parents=True)
    (workspace / "src" / "a.py").write_text("a")
    (workspace / "src" / "deep" / "b.py").write_text("b")
    (workspace / "tool").write_text("#!/bin/sh\n")
    (workspace / "tool").chmod(0o755)
    (workspace / "link").symlink_to("src/a.py")
    (base / "snapshots").mkdir()
    return await publish(workspace, base / "snapshots", owner=OWNER, index=base / "index")


def below(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


@pytest.mark.parametrize(
    ("globs", "names"),
    [
        (("src",), {"src", "src/a.py", "src/deep", "src/deep/b.py"}),
        (("src/",), {"src", "src/a.py", "src/deep", "src/deep/b.py"}),
        (("**/*.py",), {"src", "src/a.py", "src/deep", "src/deep/b.py"}),
        (("src/*.py", "tool"), {"src", "src/a.py", "tool"}),
        (("link",), {"link"}),
        ((), set()),
    ],
)
async def test_a_part_has_what_a_glob_takes(
    tmp_path: Path, globs: tuple[str, ...], names: set[str]
) -> None:
    """As in the whole: the same bytes and modes, which are the same files on the disk."""
    whole = await published(tmp_path)

    part = await publish_part(whole, tmp_path / "snapshots", globs, owner=OWNER)

    assert names == below(part.path)
    assert (None, None, ()) == (part.commit, part.dirty, part.warnings)
    for name in names:
        if (part.path / name).is_file():
            assert (whole.path / name).samefile(part.path / name)


async def test_other_files_are_not_part_of_its_hash(tmp_path: Path) -> None:
    """Only a change of what it has gives it another name."""
    whole = await published(tmp_path)
    first = await publish_part(whole, tmp_path / "snapshots", ("src",), owner=OWNER)
    (tmp_path / "workspace" / "tool").write_text("changed")
    other = await publish(tmp_path / "workspace", tmp_path / "snapshots", owner=OWNER)
    same = await publish_part(other, tmp_path / "snapshots", ("src",), owner=OWNER)
    (tmp_path / "workspace" / "src" / "a.py").write_text("changed")
    third = await publish(tmp_path / "workspace", tmp_path / "snapshots", owner=OWNER)
    changed = await publish_part(third, tmp_path / "snapshots", ("src",), owner=OWNER)

    assert whole.hash != other.hash
    assert first.hash == same.hash != changed.hash


async def test_a_glob_that_takes_nothing_is_told(tmp_path: Path) -> None:
    whole = await published(tmp_path)

    part = await publish_part(whole, tmp_path / "snapshots", ("tool", "docs/*"), owner=OWNER)

    assert ("sources: 'docs/*' matches no file of the workspace",) == part.warnings


async def test_with_the_index_no_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the part is the same."""
    whole = await published(tmp_path)
    read = await publish_part(whole, tmp_path / "snapshots", ("src",), owner=OWNER)
    index = read_index(tmp_path / "index", tmp_path / "workspace")
    monkeypatch.setattr(parting, "digest", lambda path: pytest.fail(f"{path!r} was read"))

    known = await publish_part(whole, tmp_path / "snapshots", ("src",), owner=OWNER, index=index)

    assert read.hash == known.hash
