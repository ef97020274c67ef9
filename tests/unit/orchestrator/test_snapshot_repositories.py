"""A repository is read as git reads it, or the run stops: never another tree without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import SnapshotError
from orchestrator.git import process
from orchestrator.snapshot.snapshot import publish
from tests.unit.orchestrator.workspaces import (
    OWNER,
    TRACKED,
    fill,
    fill_inner,
    git,
    names,
    published,
)


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def as_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def as_linked_work_tree(workspace: Path) -> None:
    main = workspace.with_name("main")
    workspace.rename(main)
    git(main, "worktree", "add", "-q", "--detach", str(workspace))
    (workspace / "secret").write_text("s")


def as_work_tree_of_a_bare_repository(workspace: Path) -> None:
    as_linked_work_tree(workspace)
    git(workspace.with_name("main"), "config", "core.bare", "true")


def as_shared_clone(workspace: Path) -> None:
    main = workspace.with_name("main")
    workspace.rename(main)
    git(main.parent, "clone", "-q", "--shared", str(main), str(workspace))
    (workspace / "secret").write_text("s")


def with_linked_git_dir(workspace: Path) -> None:
    (workspace / ".git").rename(workspace.with_name("elsewhere"))
    (workspace / ".git").symlink_to("../elsewhere")


def with_git_file(workspace: Path) -> None:
    (workspace / ".git").rename(workspace.with_name("elsewhere"))
    (workspace / ".git").write_text("gitdir: ../elsewhere\n")


def with_linked_head(workspace: Path) -> None:
    target = git(workspace, "symbolic-ref", "HEAD")
    (workspace / ".git" / "HEAD").unlink()
    (workspace / ".git" / "HEAD").symlink_to(target)


def with_all_of_the_index(workspace: Path) -> None:
    git(workspace, "update-index", "--split-index")
    (workspace / "a").write_text("a\n")
    git(workspace, "update-index", "--untracked-cache", "--index-version", "4", "a")


def with_sparse_index(workspace: Path) -> None:
    git(workspace, "sparse-checkout", "init", "--cone", "--sparse-index")
    git(workspace, "sparse-checkout", "set", "d")
    (workspace / "secret").write_text("s")


READ: dict[str, Callable[[Path], object]] = {
    "plain": lambda tree: None,
    "work tree": as_linked_work_tree,
    "work tree of a bare repository": as_work_tree_of_a_bare_repository,
    "alternates": as_shared_clone,
    "link to .git": with_linked_git_dir,
    "gitfile": with_git_file,
    "link as HEAD": with_linked_head,
    "detached HEAD": lambda tree: git(tree, "checkout", "-q", "--detach"),
    "packed refs": lambda tree: git(tree, "pack-refs", "--all", "--prune"),
    "packed objects": lambda tree: git(tree, "gc", "-q"),
    "split index of version 4": with_all_of_the_index,
    "sparse index": with_sparse_index,
    "settings of a work tree": lambda tree: git(tree, "sparse-checkout", "set", "--no-cone", "/*"),
    "harmless extension": lambda tree: append(
        tree / ".git" / "config", "[core]\nrepositoryFormatVersion=1\n[extensions]\nnoop\n"
    ),
    "info/exclude": lambda tree: append(tree / ".git" / "info" / "exclude", "/d/b2\n"),
}
if os.geteuid() == 0:  # nobody else can give a file away
    READ["another owner"] = lambda tree: subprocess.run(
        ["chown", "-R", "1234", str(tree)], check=True
    )


@pytest.mark.parametrize("changed", [False, True], ids=["clean", "dirty"])
@pytest.mark.parametrize("shape", READ)
async def test_every_shape_of_repository_is_read_as_git_reads_it(
    workspace: Path, snapshots: Path, shape: str, changed: bool
) -> None:
    """The files, the commit and whether the tree differs are those that git tells."""
    fill(workspace)
    READ[shape](workspace)
    if changed:
        (workspace / "d" / "b").write_text("D/b\n")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    safe = ("-c", f"safe.directory={workspace}")
    listed = git(workspace, *safe, "ls-files", "--cached", "--others", "--exclude-standard")
    here = {name for name in listed.split("\n") if (workspace / name).exists()}
    assert here == names(snapshot) >= {"d/b", "d/deep/c.o"}
    assert git(workspace, *safe, "rev-parse", "HEAD") == snapshot.commit
    assert bool(git(workspace, *safe, "status", "--porcelain")) == changed == snapshot.dirty
    assert () == snapshot.warnings


async def test_sha256_repositories_are_read(workspace: Path, snapshots: Path) -> None:
    """Their commits have 64 digits."""
    git(workspace, "init", "-q", "--object-format=sha256")
    commit = fill(workspace)

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert (TRACKED, commit, False) == (names(snapshot), snapshot.commit, snapshot.dirty)
    assert 64 == len(commit)


async def test_a_directory_of_a_repository_can_be_the_workspace(
    workspace: Path, snapshots: Path
) -> None:
    """It has the rules and the commit of the repository around it, and its own changes alone."""
    commit = fill(workspace)
    (workspace / "a").write_text("changed, elsewhere")

    snapshot = await publish(workspace / "d", snapshots, owner=OWNER)

    assert {"b", "deep/c.o"} == names(snapshot)
    assert (commit, False) == (snapshot.commit, snapshot.dirty)


@pytest.mark.parametrize("where", ["repository", "user", "xdg"])
async def test_lists_of_ignored_files_count(
    workspace: Path, snapshots: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the repository or the user names in git's configuration."""
    home = tmp_path / "home"
    (home / ".config" / "git").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    ignoring = home / ("ignoring" if where != "xdg" else ".config/git/ignore")
    ignoring.write_text("*.key\n")
    fill(workspace)
    (workspace / "a.key").touch()
    if where == "repository":
        git(workspace, "config", "core.excludesFile", "~/ignoring")
    elif where == "user":
        (home / ".gitconfig").write_text(f"[core]\nexcludesFile = {ignoring}\n")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert names(snapshot) == TRACKED
    assert snapshot.dirty is False


def git_dir(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda tree: change(tree / ".git")


def with_config(text: str) -> Callable[[Path], object]:
    return lambda tree: append(tree / ".git" / "config", text)


def with_only(dot_git: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in the place of `.git`."""

    def change(tree: Path) -> None:
        (tree / ".git").rename(tree.with_name("moved"))
        dot_git(tree / ".git")

    return change


def without_objects(dot_git: Path) -> None:
    for directory in (dot_git / "objects").iterdir():
        shutil.rmtree(directory)


def sparse_file(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "reftable": (
        with_config("[core]\nrepositoryFormatVersion = 1\n[extensions]\nrefStorage = reftable\n"),
        "refstorage",
    ),
    "unknown extension": (
        with_config("[core]\nrepositoryFormatVersion = 1\n[extensions]\nfromTheFuture = x\n"),
        "fromthefuture",
    ),
    "newer format": (with_config("[core]\nrepositoryFormatVersion = 99\n"), "99"),
    "format that is no number": (with_config("[core]\nrepositoryFormatVersion = x\n"), "numeric"),
    "configuration that is none": (with_config("[core\n"), "bad config"),
    "configuration that is a pipe": (git_dir(lambda it: as_fifo(it / "config")), "config"),
    "bare": (with_config("[core]\nbare\n"), "core.bare"),
    "bare in many digits": (with_config(f"[core]\nbare = {'9' * 5000}\n"), "core.bare"),
    "work tree elsewhere": (with_config("[core]\nworktree = /etc\n"), "/etc"),
    "no HEAD": (git_dir(lambda it: (it / "HEAD").unlink()), "HEAD"),
    "HEAD that is none": (git_dir(lambda it: (it / "HEAD").write_text("x")), "HEAD"),
    "HEAD that is a pipe": (git_dir(lambda it: as_fifo(it / "HEAD")), "HEAD"),
    "HEAD that leads outside": (
        git_dir(lambda it: (it / "HEAD").write_text("ref: refs/../../../../etc/passwd\n")),
        "HEAD",
    ),
    "ref that is none": (
        lambda tree: (tree / ".git" / git(tree, "symbolic-ref", "HEAD")).write_text("x"),
        "HEAD",
    ),
    "refs in a circle": (
        lambda tree: (tree / ".git" / git(tree, "symbolic-ref", "HEAD")).write_text(
            f"ref: {git(tree, 'symbolic-ref', 'HEAD')}\n"
        ),
        "HEAD",
    ),
    "ref that is a pipe": (
        lambda tree: as_fifo(tree / ".git" / git(tree, "symbolic-ref", "HEAD")),
        "not a regular file",
    ),
    "huge packed refs": (
        lambda tree: (
            git(tree, "pack-refs", "--all", "--prune"),
            sparse_file(tree / ".git" / "packed-refs"),
        ),
        "256 MiB",
    ),
    "no objects": (git_dir(lambda it: shutil.rmtree(it / "objects")), "objects"),
    "lost objects": (git_dir(without_objects), "object"),
    "index that is none": (git_dir(lambda it: (it / "index").write_text("x" * 100)), "index"),
    "huge index": (git_dir(lambda it: sparse_file(it / "index")), "index"),
    "index that is a pipe": (git_dir(lambda it: as_fifo(it / "index")), "index"),
    "list of ignored files that is a pipe": (
        git_dir(lambda it: as_fifo(it / "info" / "exclude")),
        "exclude",
    ),
    ".git that is a pipe": (with_only(os.mkfifo), "neither a directory nor a file"),
    ".git that is a device": (with_only(lambda it: it.symlink_to("/dev/zero")), "neither"),
    ".git that leads nowhere": (with_only(lambda it: it.symlink_to("nowhere")), "nowhere"),
    ".git that leads to itself": (with_only(lambda it: it.symlink_to(".git")), "symbolic links"),
    "gitfile that leads nowhere": (with_only(lambda it: it.write_text("gitdir: no")), "no"),
    "gitfile that leads to itself": (with_only(lambda it: it.write_text("gitdir: .git")), ".git"),
    "gitfile that is none": (with_only(lambda it: it.write_text("x")), "invalid gitfile"),
    "huge gitfile": (with_only(sparse_file), "256 MiB"),
    ".git with something else": (with_only(lambda it: shutil.copytree("/etc/default", it)), "HEAD"),
}


@pytest.mark.parametrize("inside", ["", "d"], ids=["root", "subdirectory"])
@pytest.mark.parametrize("fault", UNREADABLE)
async def test_a_repository_that_cannot_be_read_stops_the_run(
    workspace: Path, snapshots: Path, fault: str, inside: str
) -> None:
    """One error names the place and what git says; nothing is published."""
    fill(workspace)
    change, told = UNREADABLE[fault]
    change(workspace)

    with pytest.raises(SnapshotError) as caught:
        await publish(workspace / inside, snapshots, owner=OWNER)

    assert str(workspace) in caught.value.brief
    assert told in f"{caught.value.brief} {caught.value.details}"
    assert caught.value.resolution
    assert [] == published(snapshots)


@pytest.mark.parametrize("name", [".gitignore", "d/.gitignore", "inner/.git/HEAD"])
async def test_a_pipe_that_git_waits_for_is_named(
    workspace: Path, snapshots: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git opens such files, and would wait for ever."""
    monkeypatch.setattr(process, "SLOW_SECS", 0.5)
    fill(workspace)
    fill_inner(workspace, "inner")
    as_fifo(workspace / name)

    with pytest.raises(SnapshotError, match=f"{name}.*not a regular file"):
        await publish(workspace, snapshots, owner=OWNER)

    assert [] == published(snapshots)


async def test_a_git_that_hangs_is_stopped(
    workspace: Path, snapshots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that does not answer, say."""
    monkeypatch.setattr(process, "SLOW_SECS", 0.1)
    monkeypatch.setattr(process, "GIT_SECS", 0.1)
    fill(workspace)
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(SnapshotError, match="did not end within"):
        await publish(workspace, snapshots, owner=OWNER)

    assert [] == published(snapshots)


async def test_a_directory_that_git_cannot_open_stops_the_run(
    workspace: Path, snapshots: Path
) -> None:
    """Git itself would only warn of a path that is too long, and leave out what it has."""
    git(workspace, "init", "-q")
    here = os.open(workspace, os.O_RDONLY)
    for _ in range(50):
        os.mkdir("d" * 100, dir_fd=here)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)

    with pytest.raises(SnapshotError) as caught:
        await publish(workspace, snapshots, owner=OWNER)

    assert "could not open directory" in caught.value.details
    subprocess.run(["rm", "-rf", str(workspace)], check=True)


async def test_a_link_as_ignore_file_is_passed_over_with_a_warning(
    workspace: Path, snapshots: Path
) -> None:
    """As git does."""
    git(workspace, "init", "-q")
    (workspace / "rules").write_text("a\n")
    (workspace / "a").touch()
    (workspace / ".gitignore").symlink_to("rules")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert {"rules", "a", ".gitignore"} == names(snapshot)
    (warning,) = snapshot.warnings
    assert ".gitignore" in warning


@pytest.mark.parametrize("git", ["empty", "none"])
async def test_an_empty_git_directory_is_no_repository(
    workspace: Path, snapshots: Path, git: str
) -> None:
    """Nor is one inside the workspace that is not whole; its files are ordinary ones."""
    if git == "empty":
        (workspace / ".git").mkdir()
    (workspace / "d" / ".git").mkdir(parents=True)
    (workspace / "d" / ".git" / "HEAD").touch()
    (workspace / "d" / "a").touch()

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert ({"d/a"}, None, None) == (names(snapshot), snapshot.commit, snapshot.dirty)
