"""Garbage collection in a state root: runs that have ended, and unused snapshots and outputs.

Links in a state root are deleted, never followed. Directories of jobs that the journal does not
know (because it was moved away, for example) are kept.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.journal import open_journal
from orchestrator.journal.reader import JournalReader
from orchestrator.session import locks
from orchestrator.session.disk_usage import SharedUsage
from orchestrator.session.gc_outputs import delete_leftovers, output_users, set_outputs_aside
from orchestrator.session.gc_runs import Bounds as Bounds
from orchestrator.session.gc_runs import beyond, read_runs, with_unreadable_jobs
from orchestrator.session.locks import session_of
from orchestrator.snapshot.index import UNFINISHED, snapshot_of
from orchestrator.state_root import StateRoot

_GOING = ".old-"


@dataclass(frozen=True)
class Freed:
    """How many of each were, or would be, deleted, and their bytes on disk.

    `problems` say what could not be deleted, and why. `spared` are runs beyond the bounds that are
    kept because one of their jobs cannot be read. `output_names` are the outputs'
    directories.
    """

    runs: int
    jobs: int
    snapshots: int
    size: int
    problems: tuple[str, ...]
    spared: tuple[str, ...] = ()
    outputs: int = 0
    output_names: frozenset[str] = frozenset()


def collect_garbage(
    root: StateRoot,
    journal: JournalReader,
    bounds: Bounds,
    *,
    dry_run: bool,
    ending: Collection[str] = (),
) -> Freed:
    """Delete the runs beyond the bounds, the oldest first, and leftovers.

    Leftovers are snapshots and outputs that no kept run uses, that are unfinished, or that a killed
    gc renamed; indexes of deleted snapshots; and locks and sockets of dead processes. Kept are runs
    that are not settled, that a live process holds, or that have a job which cannot be read, since
    somebody may want to examine it. Files are deleted before their journal entries: after a crash
    in between the journal still knows the rest, and on a full disk `journal` may be read-only.
    A dry run takes the leases of the instances `ending` for ended.
    """
    if not dry_run and not os.access(root.path, os.W_OK):
        raise UsageError(f"{root.path} cannot be written to", resolution="nothing was deleted")
    # First the locks, then the runs: nobody resumes a settled run without a live process.
    snapshots = _entries(root.snapshots)
    outputs = output_users(root.outputs)
    usage = SharedUsage([*snapshots, *outputs])
    living = _living(root.locks)
    runs = read_runs(root, journal, outputs, damaged=bounds.damaged, ending=ending)
    known = {run.id for run in runs}
    free = {run.id for run in runs if run.settled} - living
    problems: list[str] = []
    chosen = beyond(bounds, runs, free, usage)
    spared = () if bounds.damaged else with_unreadable_jobs(journal, chosen)
    gone = [
        run
        for run in chosen
        if run.id not in spared
        if dry_run or all(_delete(path, problems) for path in run.directories.values())
    ]
    deleted = {run.id for run in gone}
    needed = {name for run in runs if run.id not in deleted for name in run.shared}
    spare = [path for path in snapshots if path.name not in needed]
    unused = {path: users for path, users in outputs.items() if path.name not in needed}
    aside: dict[Path, Path] = {}
    with _no_submissions(root.snapshots) as alone:
        # A submission in progress may need a snapshot that no run uses yet.
        if not alone:
            spare = []
        elif not dry_run:
            aside = _set_aside(journal, spare, known, problems)
    if not dry_run:
        # Submissions need not wait for this. If we are killed here, the next gc deletes the rest.
        spare = [path for path, there in aside.items() if _delete(there, problems)]
        moved = set_outputs_aside(unused, problems)
        unused = {path: unused[path] for path, there in moved.items() if _delete(there, problems)}
        delete_leftovers(
            root.outputs, root.locks, lambda path: _delete(path, problems), moved.values()
        )
        _delete_stale_indexes(root)
        if gone:
            with open_journal(root.journal) as writable:
                writable.forget([job for run in gone for job in run.directories])
        _delete_stale_locks(root.locks, {session_of(run.id) for run in runs if not run.settled})
    every = {path.name for path in (*snapshots, *outputs)}
    kept = every.difference(path.name for path in (*spare, *unused))
    return Freed(
        runs=len(gone),
        jobs=sum(len(run.directories) for run in gone),
        snapshots=len(spare),
        size=sum(run.size for run in gone) + usage.of(every) - usage.of(kept),
        problems=tuple(problems),
        spared=tuple(spared),
        outputs=len(unused),
        output_names=frozenset(path.name for path in unused),
    )


@contextmanager
def _no_submissions(snapshots: Path) -> Iterator[bool]:
    if not snapshots.is_dir():
        yield True  # a submission creates it first
        return
    with locks.no_submissions(snapshots) as alone:
        yield alone


def _set_aside(
    journal: JournalReader, spare: Sequence[Path], known: Collection[str], problems: list[str]
) -> dict[Path, Path]:
    """Rename snapshots, so that no submission finds them; return their new paths.

    If a run was submitted before that, rename them back, and return nothing.
    """
    moved = {}
    for path in spare:
        aside = path.with_name(f"{_GOING}{secrets.token_hex(8)}")
        try:
            path.rename(aside)
        except OSError as error:
            problems.append(f"{path} could not be deleted: {error.strerror}")
        else:
            moved[path] = aside
    # A run submitted since we read the journal may use one of them; later ones cannot.
    if set(journal.runs()).difference(known):
        for path, aside in moved.items():
            if not os.path.lexists(path):
                aside.rename(path)
        return {}
    return moved


def _delete_stale_indexes(root: StateRoot) -> None:
    """Delete what is known of the files of snapshots that are gone; it is only a cache."""
    for path in _entries(root.indexes):
        snapshot = None if path.name.startswith(UNFINISHED) else snapshot_of(path)
        if snapshot is None or not (root.snapshots / snapshot).is_dir():
            with suppress(OSError):
                path.unlink()


def _delete_stale_locks(directory: Path, needed: Collection[str]) -> None:
    """Delete locks and sockets of dead processes, except for runs that recovery will take over."""
    for run in {path.name.removesuffix(".sock") for path in _entries(directory)}.difference(needed):
        lock, socket = directory / run, directory / f"{run}.sock"
        if _kind(lock) not in (None, stat.S_IFREG):
            continue
        # `try_hold` deletes the lock when it ends, and fails on a full disk.
        with suppress(OSError), locks.try_hold(directory, run) as held:
            if held and _kind(socket) == stat.S_IFSOCK:
                socket.unlink()


def _living(directory: Path) -> set[str]:
    """The sessions whose locks live processes hold."""
    files = [path for path in _entries(directory) if _kind(path) == stat.S_IFREG]
    return {path.name for path in files if locks.is_held(directory, path.name)}


def _kind(path: Path) -> int | None:
    """The type of a file, as in `stat`; None if it is gone, as when a process has just ended."""
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return None


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _unless_gone(call: object, path: str, raised: tuple[Any, BaseException, Any]) -> None:
    """Ignore what another gc, which may delete the same tree, has deleted."""
    if not isinstance(raised[1], FileNotFoundError):
        raise raised[1]


def _delete(path: Path, problems: list[str]) -> bool:
    """Delete a file, a link or a tree. If that fails, add a problem and return False."""
    reason: str | None = None
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, onerror=_unless_gone)
        else:
            path.unlink()
    except OSError as error:
        reason = error.strerror
    if os.path.lexists(path):
        problems.append(f"{path} could not be deleted: {reason}")
        return False
    return True
