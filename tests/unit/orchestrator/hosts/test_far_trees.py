"""What becomes of trees on a host, by the very scripts that run there."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.hosts import ssh_scripts
from orchestrator.hosts.far_shell import SHELL, framed
from orchestrator.hosts.manifest import difference, read_manifest
from orchestrator.hosts.pack import pack
from tests.unit.orchestrator.hosts.far_scripts import Far, run, shown

ODD = ["it's $HOME", "new\nline", "back\\slash", "-rf", "é", " "]


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with all that there can be in one."""
    root = tmp_path / "trees here" / "one"
    for name in ODD:
        (root / "odd" / name).mkdir(parents=True)
        (root / "odd" / name / "file").write_text(name)
    (root / "empty").touch()
    (root / "big").write_bytes(os.urandom(3 << 20))
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "long" / ("x" * 150)).mkdir(parents=True)
    (root / "long" / ("x" * 150) / ("y" * 150)).write_text("deep")
    (root / "locked").mkdir()
    (root / "locked/file").write_text("1")
    (root / "locked").chmod(0o555)
    (root / "link").symlink_to("run")
    (root / "dangling").symlink_to("z" * 200)
    (root / "directory link").symlink_to("odd")
    os.utime(root / "run", (1, 1))
    return root


def copied(tree: Path, name: str) -> Path:
    """Another tree that shares its files, as snapshots of one workspace do."""
    new = tree.with_name(name)
    shutil.copytree(tree, new, symlinks=True, copy_function=os.link)
    return new


def test_a_tree_arrives_as_it_is(far: Far, tree: Path) -> None:
    """Names of any bytes, modes, times, links; and the next question finds it there."""
    (tree / os.fsdecode(b"\xff\xfe")).write_bytes(b"\0\xff")
    assert ["one"] == far.ask("one").values("missing")

    answer = far.send(tree, "one")

    assert (0, "published") == (answer.exit_code, answer.text.strip()), answer
    assert shown(tree) == shown(far.tree("one"))
    assert ["one"] == far.ask("one").values("there")
    assert [] == list(far.trees.glob(".new-*"))
    assert 0o700 == far.directory.stat().st_mode & 0o777


def test_times_and_holes_arrive(far: Far, tree: Path) -> None:
    """To the nanosecond, of directories too; and a hole takes no disk there."""
    with (tree / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"in the middle")
        file.truncate(64 << 20)
    for number, path in enumerate([*tree.rglob("*"), tree]):
        os.utime(path, ns=(0, 1_234_567_890_123_456_789 + number), follow_symlinks=False)
    far.ask("one")

    assert 0 == far.send(tree, "one").exit_code

    there = far.tree("one")
    for path in [tree, *tree.rglob("*")]:
        copy = there / path.relative_to(tree)
        assert path.lstat().st_mtime_ns == copy.lstat().st_mtime_ns, path
    assert (tree / "sparse").read_bytes() == (there / "sparse").read_bytes()
    assert (there / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_tree_that_was_cut_off_anywhere_is_none(far: Far, tmp_path: Path) -> None:
    """Whatever came of it: there is no tree of this name, and nothing is left of it."""
    tree = tmp_path / "t"
    (tree / "d").mkdir(parents=True)
    (tree / "d/a").write_bytes(b"a" * 700)
    (tree / "b").symlink_to("d/a")
    (tree / "c").write_bytes(b"c" * 10)
    far.ask("t")
    whole = len(b"".join(pack(tree, read_manifest(tree))))

    # Without the two blocks at its end, an archive is as good.
    for most in [*range(0, whole - 1024, 256), whole - 1025 - 511]:
        answer = far.send(tree, "t", most=most)
        assert 0 != answer.exit_code or most >= whole - 1024, (most, answer)
        assert not far.tree("t").exists(), most
        assert [] == list(far.trees.glob(".new-*"))

    assert 0 == far.send(tree, "t").exit_code
    assert shown(tree) == shown(far.tree("t"))


def test_a_tree_that_was_damaged_on_its_way_is_none(far: Far, tree: Path) -> None:
    far.ask("one")
    data = bytearray(b"".join(pack(tree, read_manifest(tree))))
    data[data.index((tree / "big").read_bytes()[:64])] ^= 1

    answer = run(ssh_scripts.receive(str(far.directory), "one", "w", secs=60), bytes(data))

    assert 0 != answer.exit_code
    assert "did NOT match" in answer.text
    assert not far.tree("one").exists()


def test_two_who_publish_one_tree_at_once_both_succeed(far: Far, tree: Path) -> None:
    far.ask("one")
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(far.send, tree, "one", word=f"w{number}") for number in range(4)]
    assert [0] * 4 == [one.result().exit_code for one in sent]
    assert ["tree"] == [path.name for path in (far.trees / "one").iterdir() if path.is_dir()]
    assert shown(tree) == shown(far.tree("one"))
    assert [] == list(far.trees.glob(".new-*"))


def test_of_a_changed_tree_only_what_changed_is_sent(far: Far, tree: Path) -> None:
    """All else shares its files with the tree that is there, which stays as it is."""
    far.ask("one")
    far.send(tree, "one")
    before = shown(far.tree("one"))
    two = copied(tree, "two")
    for gone in ("run", "empty"):
        (two / gone).unlink()
    (two / "run").write_text("#!/bin/bash\n")
    (two / "locked").chmod(0o755)
    (two / "locked/file").unlink()
    (two / "locked/new").write_text("2")
    (two / "locked").chmod(0o555)
    shutil.rmtree(two / "odd" / ODD[0])
    (two / "odd" / ODD[0]).write_text("a file where a directory was")
    (two / "link").unlink()
    (two / "link").mkdir()

    assert ["one"] == far.ask("two", bases=["none", "one"]).values("base")
    answer, data = far.change(two, "two", tree)

    assert 0 == answer.exit_code, answer
    assert shown(two) == shown(far.tree("two"))
    assert before == shown(far.tree("one"))
    assert len(data) < 20_000
    big = [(far.tree(name) / "big").stat().st_ino for name in ("one", "two")]
    assert big[0] == big[1]


def test_the_difference_is_empty_between_a_tree_and_its_copy(tree: Path) -> None:
    found = difference(read_manifest(copied(tree, "two")), read_manifest(tree))
    assert ((), ()) == (found.remove, found.send)


def test_what_an_operator_put_in_a_tree_s_place_is_left_as_it_is(far: Far, tmp_path: Path) -> None:
    """An existing link to staged output counts as the tree."""
    staged = tmp_path / "staged"
    staged.mkdir()
    (far.trees / "one").mkdir(parents=True)
    far.tree("one").symlink_to(staged)

    assert ["one"] == far.ask("one", "two").values("there")
    assert ["two"] == far.ask("one", "two").values("missing")
    assert staged == far.tree("one").readlink()


def test_a_tree_with_a_lease_is_not_swept(far: Far, tree: Path) -> None:
    """Leases are by the clock of the host; the last one counts."""
    far.ask("one")
    far.send(tree, "one")
    assert [] == far.sweep()
    far.expire()
    assert [] == far.sweep(idle=10**10)
    assert ["one"] == far.sweep(dry_run=True)
    assert far.tree("one").exists()
    far.ask("one")
    assert [] == far.sweep()

    far.expire()
    assert ["one"] == far.sweep()
    assert [] == list(far.trees.iterdir())


def test_sweeping_leaves_the_files_that_another_tree_shares(far: Far, tree: Path) -> None:
    far.ask("one")
    far.send(tree, "one")
    two = copied(tree, "two")
    far.ask("two", bases=["one"])
    far.change(two, "two", tree)
    before = shown(far.tree("two"))
    far.expire()
    far.ask("two")

    assert ["one"] == far.sweep()
    assert before == shown(far.tree("two"))


def test_what_a_broken_transfer_left_is_swept_when_its_lease_ends(far: Far) -> None:
    far.ask("one")
    for name in (".new-a", ".new-b", ".old-c"):
        (far.trees / name / "tree/locked").mkdir(parents=True)
        (far.trees / name / "tree/locked").chmod(0o500)
    (far.trees / ".new-a/until-99999999999").touch()
    (far.trees / ".new-b/until-1").touch()

    assert {".new-b", ".old-c"} == set(far.sweep(idle=10**10))
    assert {"one", ".new-a"} == {path.name for path in far.trees.iterdir()}


def test_nothing_is_swept_where_there_is_nothing(far: Far) -> None:
    assert [] == far.sweep()


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh", "ksh"])
def test_any_login_shell_hands_a_script_on(shell: str) -> None:
    """Start-up files may print, also what looks like an answer."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    noise = b"welcome\nword begin\x00 begin\nword end 0\nword"

    answer = run("printf 'a\\nb'; cat; exit 7", b"rest", shell=program, before=noise)

    assert ("a\nbrest", 7) == (answer.text, answer.exit_code)


def test_what_a_failed_script_did_not_read_is_no_script(far: Far, tmp_path: Path) -> None:
    """A file of a workspace may have any lines."""
    tree, ran = tmp_path / "t", tmp_path / "ran"
    tree.mkdir()
    (tree / "file").write_text(f"\ntouch {ran}\n#go\n")
    far.ask("t")
    (far.trees / ".new-w").mkdir()  # so that it fails before it reads

    assert 0 != far.send(tree, "t").exit_code
    assert not ran.exists()


def test_a_script_that_was_cut_off_is_not_run(tmp_path: Path) -> None:
    data = framed(f"touch {tmp_path / 'ran'}\n{'#' * 50}\n", "w")
    for most in range(len(data)):
        subprocess.run(["sh", "-c", SHELL], input=data[:most], check=True, capture_output=True)
        if most < len(data) - 1:
            assert not (tmp_path / "ran").exists()
