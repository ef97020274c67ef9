"""Garbage collection of outputs: those that no kept run made or used, and leftovers.

A job holds the lock of a key from its look for the output until the journal knows that it uses or
made it. Garbage collection takes the same lock, so the two never meet; while somebody has it, the
output is kept.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.outputs.building import LOCK, try_lock
from orchestrator.outputs.store import NEW, OutputStore
from orchestrator.session import locks

_GOING = ".old-"


def output_users(directory: Path) -> dict[Path, frozenset[str]]:
    """The outputs below a directory, each with the runs that made or used it.

    Call this before reading the journal, which then knows all of these runs unless they were
    deleted.
    """
    store = OutputStore(directory)
    return {
        path: frozenset(store.runs(path.name))
        for path in _entries(directory)
        if not path.name.startswith(".")
    }


def set_outputs_aside(
    spare: Mapping[Path, frozenset[str]], problems: list[str]
) -> dict[Path, Path]:
    """Rename outputs, so that no job finds them; return their new paths.

    `spare` has the runs that used each when `output_users` looked. One that was used since then, or
    that a job looks at or makes at this moment, stays.
    """
    moved: dict[Path, Path] = {}
    for path, runs in spare.items():
        key = path.name.partition(".")[0]
        try:
            with _locked(path.with_name(f"{LOCK}{key}")) as alone:
                if not alone or frozenset(OutputStore(path.parent).runs(path.name)) != runs:
                    continue
                aside = path.with_name(f"{_GOING}{secrets.token_hex(8)}")
                path.rename(aside)
                moved[path] = aside
        except FileNotFoundError:
            pass  # another gc was faster
        except OSError as error:
            problems.append(f"{path} could not be deleted: {error.strerror}")
    return moved


def delete_leftovers(
    directory: Path, sessions: Path, delete: Callable[[Path], object], going: Collection[Path]
) -> None:
    """Delete what dead processes left: unfinished outputs, and those that a killed gc renamed.

    `sessions` has the locks of sessions. `going` are deleted by the caller. Locks of keys that
    nobody holds go too.
    """
    # List the names before checking the locks: a process that takes over a session uses new names.
    for path in _entries(directory):
        if path.name.startswith(_GOING) and path not in going:
            delete(path)
        elif path.name.startswith(NEW):
            run = path.name.removeprefix(NEW).partition(".")[0]
            if not locks.is_held(sessions, run):
                delete(path)
        elif path.name.startswith(LOCK):
            # Whoever opened the file meanwhile sees that it is gone, and makes another.
            with _locked(path, make=False) as alone:
                if alone:
                    path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path, *, make: bool = True) -> Iterator[bool]:
    """Hold a lock of a key during the block; False if somebody has it."""
    held = try_lock(path) if make or path.is_file() else None
    try:
        yield held is not None
    finally:
        if held is not None:
            os.close(held)


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
