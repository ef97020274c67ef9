"""The `.git` of a snapshot: a repository of its own at the commit, which real git accepts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from orchestrator.errors import SnapshotError, UsageError
from orchestrator.git import own
from orchestrator.git.process import run_git
from orchestrator.snapshot import git_dir
from orchestrator.snapshot.progress import Progress
from orchestrator.snapshot.snapshot import Snapshot, publish
from tests.unit.orchestrator.test_snapshot_repositories import READ
from tests.unit.orchestrator.workspaces import (
    OWNER,
    add_gitlink,
    commit_all,
    fill,
    fill_inner,
    git,
    names,
    published,
)


def seen(snapshot: Snapshot, *args: str) -> str:
    """What git prints in the snapshot, as in a guest: it may write nothing."""
    return git(snapshot.path, "-c", "safe.directory=*", "--no-optional-locks", *args)


def packs(snapshot: Snapshot) -> list[Path]:
    return sorted((snapshot.path / ".git" / "objects" / "pack").glob("*.pack"))


@pytest.fixture
def tagged(workspace: Path) -> Path:
    """A workspace with two commits: v1 at the first, and a tag on a branch that is elsewhere."""
    fill(workspace)
    git(workspace, "tag", "-a", "-m", "one", "v1")
    (workspace / "a").write_text("second\n")
    commit_all(workspace)
    git(workspace, "checkout", "-qb", "other")
    (workspace / "a").write_text("a password, on a branch\n")
    commit_all(workspace)
    git(workspace, "tag", "unrelated")
    git(workspace, "checkout", "-q", "-")
    return workspace


async def test_git_works_as_in_the_workspace(tagged: Path, snapshots: Path) -> None:
    """Names, history and state are the workspace's; HEAD is detached, and nothing is broken."""
    snapshot = await publish(tagged, snapshots, git=True, owner=OWNER)

    for args in (
        ("describe", "--tags", "--dirty", "--long"),
        ("log", "--format=%H %an %s %D", "--decorate-refs=refs/tags"),
        ("status", "--porcelain"),
        ("ls-files", "--stage"),
        ("rev-parse", "HEAD", "v1", "v1^{commit}"),
    ):
        assert git(tagged, *args) == seen(snapshot, *args)
    assert "v1-1-g" in seen(snapshot, "describe", "--tags")
    assert "HEAD" == seen(snapshot, "rev-parse", "--abbrev-ref", "HEAD")
    assert "" == seen(snapshot, "fsck", "--strict", "--full")


async def test_people_read_the_commit_s_subject_and_the_branch(
    tagged: Path, snapshots: Path
) -> None:
    """Of any bytes and length; a detached commit has no branch, and the hash does not change."""
    branch = git(tagged, "symbolic-ref", "--short", "HEAD")
    before = await publish(tagged, snapshots, owner=OWNER)
    git(tagged, "checkout", "-q", "-b", "topic/\N{LATIN SMALL LETTER E WITH ACUTE}")
    message = b"\n\n  quoted \x1b[31m commas " + b"x" * 1000 + b"\n\nThe body.\n"
    (tagged.parent / "message").write_bytes(message)
    git(tagged, "commit", "-q", "--allow-empty", "-F", str(tagged.parent / "message"))
    topic = await publish(tagged, snapshots, owner=OWNER)
    git(tagged, "checkout", "-q", "--detach")
    detached = await publish(tagged, snapshots, owner=OWNER)

    assert branch == before.branch
    assert git(tagged, "show", "-s", "--format=%s", before.commit or "") == before.subject
    assert "topic/\N{LATIN SMALL LETTER E WITH ACUTE}" == topic.branch
    assert topic.subject.startswith("quoted \x1b[31m commas xxx")
    assert 200 == len(topic.subject)
    assert ("", topic.subject) == (detached.branch, detached.subject)
    assert before.hash == topic.hash == detached.hash


async def test_nothing_else_of_the_repository_is_there(tagged: Path, snapshots: Path) -> None:
    """No other commit, branch, hook, remote, configuration or log, and no object of one."""
    other = git(tagged, "rev-parse", "other:a")
    git(tagged, "remote", "add", "origin", "https://name:password@example.com/x")
    git(tagged, "config", "user.password", "p4ssw0rd")
    (tagged / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\nfalse\n")
    git(tagged, "stash", "list")
    snapshot = await publish(tagged, snapshots, git=True, owner=OWNER)

    assert {"HEAD", "config", "index", "objects", "packed-refs", "refs"} == set(
        os.listdir(snapshot.path / ".git")
    )
    assert ["v1"] == seen(snapshot, "tag").split()
    assert "" == seen(snapshot, "branch", "--format=%(refname)").replace(
        seen(snapshot, "branch", "--format=%(refname)", "--contains", "HEAD"), ""
    )
    with pytest.raises(subprocess.CalledProcessError):
        seen(snapshot, "cat-file", "-e", other)
    config = (snapshot.path / ".git" / "config").read_text()
    assert ["[core]"] == [line for line in config.splitlines() if line.startswith("[")]


async def test_an_unchanged_tree_is_the_same_snapshot(
    tagged: Path, snapshots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the repository's packs, branches and unrelated tags; nothing is packed then."""
    index = tmp_path / "index"
    first = await publish(tagged, snapshots, git=True, owner=OWNER, index=index)
    monkeypatch.setattr(own, "run_git", None)
    git(tagged, "gc", "-q", "--aggressive", "--prune=now")
    git(tagged, "tag", "another", "other")
    git(tagged, "checkout", "-qb", "renamed")
    again = await publish(tagged, snapshots, git=True, owner=OWNER, index=index)
    assert first == replace(again, branch=first.branch)
    assert [first.hash] == published(snapshots)


async def test_what_the_repository_shows_is_part_of_the_hash(tagged: Path, snapshots: Path) -> None:
    """Without `git` the tree alone counts; with it also the commit and its tags."""
    plain = await publish(tagged, snapshots, owner=OWNER)
    with_git = await publish(tagged, snapshots, git=True, owner=OWNER)
    git(tagged, "tag", "v2")
    with_tag = await publish(tagged, snapshots, git=True, owner=OWNER)
    git(tagged, "commit", "-q", "--allow-empty", "-m", "the same tree")
    with_commit = await publish(tagged, snapshots, git=True, owner=OWNER)

    assert plain.hash == (await publish(tagged, snapshots, owner=OWNER)).hash
    assert names(plain) == {name for name in names(with_git) if not name.startswith(".git/")}
    assert 4 == len({one.hash for one in (plain, with_git, with_tag, with_commit)})
    assert "v2" == seen(with_tag, "describe", "--tags")
    assert "v2-1-g" in seen(with_commit, "describe", "--tags")


async def test_changes_show_as_changes(tagged: Path, snapshots: Path) -> None:
    """As in the workspace; what is staged there shows as changed or new."""
    (tagged / "a").write_text("changed\n")
    (tagged / "new").write_text("new\n")
    (tagged / "d" / "b").unlink()
    (tagged / "d" / "deep" / "c.o").chmod(0o755)
    expected = git(tagged, "status", "--porcelain")
    git(tagged, "add", "-A")
    snapshot = await publish(tagged, snapshots, git=True, owner=OWNER)

    assert expected == seen(snapshot, "status", "--porcelain")
    assert seen(snapshot, "describe", "--tags", "--dirty").endswith("-dirty")
    assert "-second\n+changed" in seen(snapshot, "diff", "a")


async def test_left_out_files_are_not_changes(tagged: Path, snapshots: Path) -> None:
    """Neither by `exclude` nor by a sparse checkout; a deleted file is another snapshot."""
    excluded = await publish(tagged, snapshots, exclude=("d/b",), git=True, owner=OWNER)
    assert "" == seen(excluded, "status", "--porcelain")
    (tagged / "d" / "b").unlink()
    deleted = await publish(tagged, snapshots, git=True, owner=OWNER)
    assert "D d/b" == seen(deleted, "status", "--porcelain")
    assert excluded.hash != deleted.hash

    git(tagged, "checkout", "-q", ".")
    git(tagged, "sparse-checkout", "set", "--no-cone", "/a")
    sparse = await publish(tagged, snapshots, git=True, owner=OWNER)
    assert {"a"} == {name for name in names(sparse) if not name.startswith(".git/")}
    assert "" == seen(sparse, "status", "--porcelain")


@pytest.mark.parametrize("shape", READ)
async def test_every_shape_of_repository(workspace: Path, snapshots: Path, shape: str) -> None:
    """Work trees, alternates, packed or loose: the repository in the snapshot stands alone."""
    commit = fill(workspace)
    git(workspace, "tag", "v1")
    READ[shape](workspace)
    snapshot = await publish(workspace, snapshots, git=True, owner=OWNER)
    for path in workspace.parent.iterdir():
        if path != snapshots:
            shutil.rmtree(path)

    assert commit == seen(snapshot, "rev-parse", "HEAD", "--").split()[0]
    assert "v1" == seen(snapshot, "describe", "--tags", "--dirty")
    assert "" == seen(snapshot, "fsck", "--strict", "--full")
    assert (
        snapshot.path.joinpath(".git").is_dir() and not snapshot.path.joinpath(".git").is_symlink()
    )


async def test_a_shallow_clone_stays_shallow(tagged: Path, snapshots: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{tagged}", str(clone))
    snapshot = await publish(clone, snapshots, git=True, owner=OWNER)

    assert "1" == seen(snapshot, "rev-list", "--count", "HEAD")
    assert "true" == seen(snapshot, "rev-parse", "--is-shallow-repository")
    assert "" == seen(snapshot, "status", "--porcelain")
    git(clone, "fetch", "-q", "--unshallow", "--tags")
    whole = await publish(clone, snapshots, git=True, owner=OWNER)
    assert "false" == seen(whole, "rev-parse", "--is-shallow-repository")
    assert seen(whole, "describe", "--tags") == git(tagged, "describe", "--tags")


def test_git_gets_all_of_its_input_however_long_it_takes(tmp_path: Path) -> None:
    """More than a pipe holds, when it begins to read only after the first look at it."""
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nsleep 0.5\nwc -c\n")
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    done = run_git([], env=env, cwd=tmp_path, where=tmp_path, stdin=bytes(1 << 20), secs=20)

    assert 1 << 20 == int(done.stdout)


async def test_any_number_of_tags_is_fine(tagged: Path, snapshots: Path, tmp_path: Path) -> None:
    """Also in a shallow clone: they would be too many for a command line."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{tagged}", str(clone))
    commit = git(clone, "rev-parse", "HEAD")
    refs = clone / ".git" / "packed-refs"
    refs.write_text("".join(f"{commit} refs/tags/t{number}\n" for number in range(60_000)))
    snapshot = await publish(clone, snapshots, git=True, owner=OWNER)

    assert 60_000 == len(seen(snapshot, "tag").splitlines())
    assert "true" == seen(snapshot, "rev-parse", "--is-shallow-repository")


async def test_a_repository_of_another_object_format(workspace: Path, snapshots: Path) -> None:
    git(workspace, "init", "-q", "--object-format=sha256")
    commit = fill(workspace)
    snapshot = await publish(workspace, snapshots, git=True, owner=OWNER)

    assert 64 == len(commit)
    assert commit == seen(snapshot, "rev-parse", "HEAD")
    assert "" == seen(snapshot, "status", "--porcelain")


async def test_a_submodule_is_files_without_a_repository(workspace: Path, snapshots: Path) -> None:
    """Its files are there; the outer repository shows neither them nor a change."""
    fill(workspace)
    add_gitlink(workspace, "sub", fill_inner(workspace, "sub"))
    add_gitlink(workspace, "empty")
    (workspace / "empty").mkdir()
    snapshot = await publish(workspace, snapshots, git=True, owner=OWNER)

    assert (snapshot.path / "sub" / "x.c").exists()
    assert not (snapshot.path / "sub" / ".git").exists()
    assert "" == seen(snapshot, "status", "--porcelain")


async def test_a_submodule_can_be_the_workspace(
    tagged: Path, snapshots: Path, tmp_path: Path
) -> None:
    """Its objects are in the outer repository, whose history stays out."""
    outer = tmp_path / "outer"
    fill_inner(tmp_path, "outer")
    allow = ("-c", "protocol.file.allow=always")
    git(outer, *allow, "submodule", "--quiet", "add", str(tagged), "sub")
    snapshot = await publish(outer / "sub", snapshots, git=True, owner=OWNER)

    assert (outer / "sub" / ".git").is_file()
    assert "v1-1-g" in seen(snapshot, "describe", "--tags")
    assert "" == seen(snapshot, "fsck", "--full") == seen(snapshot, "status", "--porcelain")


async def test_a_partial_clone_is_refused(tagged: Path, snapshots: Path, tmp_path: Path) -> None:
    """Nothing is fetched; the error says how to get what is missing."""
    git(tagged, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{tagged}", str(clone))
    with pytest.raises(SnapshotError) as caught:
        await publish(clone, snapshots, git=True, owner=OWNER)
    assert "git fetch --refetch --no-filter" in caught.value.resolution
    assert [] == published(snapshots)

    git(clone, "fetch", "-q", "--refetch", "--no-filter")
    snapshot = await publish(clone, snapshots, git=True, owner=OWNER)
    assert "" == seen(snapshot, "fsck", "--full")


@pytest.mark.parametrize("name", ["plain", 'a:b "c\\d', "caf\u00e9"])
async def test_nothing_is_written_to_the_workspace(
    tagged: Path, snapshots: Path, name: str
) -> None:
    """Not even a temporary file: it may be on another file system, or read-only."""
    workspace = tagged.rename(tagged.with_name(name))
    git(workspace, "repack", "-q", "-a", "-d")

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (workspace / ".git").rglob("*")}

    before = times()
    snapshot = await publish(workspace, snapshots, git=True, owner=OWNER)

    assert before == times()
    assert "" == seen(snapshot, "fsck", "--full")


async def test_a_large_history_is_a_warning(
    tagged: Path, snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every run, and not without `git`."""
    monkeypatch.setattr(git_dir, "LARGE_BYTES", 100)
    made = await publish(tagged, snapshots, git=True, owner=OWNER)
    known = await publish(tagged, snapshots, git=True, owner=OWNER)
    plain = await publish(tagged, snapshots, owner=OWNER)

    assert made.warnings == known.warnings
    (warning,) = made.warnings
    assert "the history in the snapshot's .git has" in warning
    assert () == plain.warnings


async def test_only_new_history_is_packed(tagged: Path, snapshots: Path, tmp_path: Path) -> None:
    """A changed tree has the previous packs, a new commit one more; an amended one is not there."""

    async def once() -> Snapshot:
        return await publish(tagged, snapshots, git=True, owner=OWNER, index=tmp_path / "index")

    first = await once()
    (tagged / "a").write_text("changed\n")
    changed = await once()
    assert [path.stat().st_ino for path in packs(first)] == [
        path.stat().st_ino for path in packs(changed)
    ]
    assert "M a" == seen(changed, "status", "--porcelain")

    commit_all(tagged)
    committed = await once()
    assert 2 == len(packs(committed))
    assert packs(first)[0].stat().st_ino in {path.stat().st_ino for path in packs(committed)}
    assert "" == seen(committed, "status", "--porcelain") == seen(committed, "fsck", "--full")

    secret = git(tagged, "rev-parse", "HEAD:a")
    (tagged / "a").write_text("amended\n")
    git(tagged, "commit", "-qa", "--amend", "-m", "without it")
    amended = await once()
    assert 1 == len(packs(amended))
    assert "" == seen(amended, "status", "--porcelain") == seen(amended, "fsck", "--full")
    with pytest.raises(subprocess.CalledProcessError):
        seen(amended, "cat-file", "-e", secret)


async def test_packs_do_not_become_many(
    tagged: Path, snapshots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "_MAX_PACKS", 2)
    numbers = []
    for number in range(4):
        (tagged / "a").write_text(f"{number}\n")
        commit_all(tagged)
        snapshot = await publish(tagged, snapshots, git=True, owner=OWNER, index=tmp_path / "index")
        numbers.append(len(packs(snapshot)))
    assert [1, 2, 1, 2] == numbers


def detach(workspace: Path) -> None:
    shutil.rmtree(workspace / ".git")


def without_commit(workspace: Path) -> None:
    detach(workspace)
    git(workspace, "init", "-q")


@pytest.mark.parametrize(
    ("change", "below", "says"),
    [
        (detach, ".", "needs a git repository"),
        (without_commit, ".", "needs a commit"),
        (lambda workspace: None, "d", "a directory of"),
    ],
    ids=["no repository", "no commit", "directory"],
)
async def test_there_is_nothing_to_make_it_from(
    tagged: Path, snapshots: Path, change: Callable[[Path], None], below: str, says: str
) -> None:
    """One line, before anything is made."""
    change(tagged)
    with pytest.raises(UsageError, match=says) as caught:
        await publish(tagged / below, snapshots, git=True, owner=OWNER)
    assert "\n" not in str(caught.value)
    assert caught.value.resolution
    assert [] == published(snapshots)


def lose_a_blob(workspace: Path) -> None:
    blob = git(workspace, "rev-parse", "v1:a")
    (workspace / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


def break_a_blob(workspace: Path) -> None:
    blob = git(workspace, "rev-parse", "v1:a")
    path = workspace / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o600)
    path.write_bytes(b"x")


def make_shallow_a_pipe(workspace: Path) -> None:
    os.mkfifo(workspace / ".git" / "shallow")


def make_shallow_anything(workspace: Path) -> None:
    (workspace / ".git" / "shallow").write_text("../..\n")


@pytest.mark.parametrize(
    "breaks", [lose_a_blob, break_a_blob, make_shallow_a_pipe, make_shallow_anything]
)
async def test_a_broken_repository_is_refused(
    tagged: Path, snapshots: Path, breaks: Callable[[Path], None]
) -> None:
    """With git's words and what to do; nothing is published."""
    breaks(tagged)
    with pytest.raises(SnapshotError) as caught:
        await publish(tagged, snapshots, git=True, owner=OWNER)
    assert isinstance(caught.value, UsageError)
    assert caught.value.resolution
    assert [] == published(snapshots)


async def test_forged_refs_do_not_count(tagged: Path, snapshots: Path) -> None:
    """Grafts, replaced objects, tags without objects, and names that are none."""
    head, first = git(tagged, "rev-parse", "HEAD", "HEAD^").split()
    git(tagged, "replace", head, first)
    (tagged / ".git" / "info" / "grafts").write_text(f"{head}\n")
    with open(tagged / ".git" / "packed-refs", "ab") as file:
        for name in (b"missing", b"../../x", b"a..b", b"a\x01", b"sp ace", b"x.lock"):
            target = b"1" * 40 if name == b"missing" else head.encode()
            file.write(b"%b refs/tags/%b\n" % (target, name))
    (tagged / ".git" / "refs" / "tags" / "link").symlink_to("/etc/hostname")
    (tagged / ".git" / "refs" / "tags" / "loop").symlink_to("loop")
    (tagged / ".git" / "refs" / "tags" / "symbolic").write_text("ref: refs/heads/other\n")
    snapshot = await publish(tagged, snapshots, git=True, owner=OWNER)

    assert ["v1"] == seen(snapshot, "tag").split()
    assert "2" == seen(snapshot, "rev-list", "--count", "HEAD")


@pytest.fixture
def slow_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that takes ten minutes to pack anything."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        '#!/bin/sh\ncase "$*" in *pack-objects*) exec sleep 600;; esac\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)


async def test_packing_can_be_cancelled(tagged: Path, snapshots: Path, slow_packing: None) -> None:
    """Git is killed at once, and nothing is left behind."""
    progress = Progress()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                await publish(tagged, snapshots, git=True, owner=OWNER, progress=progress)

            nursery.start_soon(call)
            while progress.doing != "packing":
                await trio.sleep(0.01)
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
    assert [] == published(snapshots)


async def test_packing_has_a_deadline(
    tagged: Path, snapshots: Path, slow_packing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "PACK_SECS", 0.3)
    with trio.fail_after(20), pytest.raises(SnapshotError, match="packing the history") as caught:
        await publish(tagged, snapshots, git=True, owner=OWNER)
    assert "--depth" in caught.value.resolution
    assert [] == published(snapshots)
