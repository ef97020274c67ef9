"""The fake as a program: `python -m orchestrator.fake_incus ARGS` is `incus ARGS`.

For tests that must start a process, and for trying pikaci without a daemon. The daemon's state is
`state.json` in the directory that PIKACI_FAKE_INCUS_DIR names; at first it is like a real daemon
after `pikaci setup`.

Without a daemon there are limits. What an exec starts runs inside this program and dies with it:
`follow` and `cancel` from another process do not see that job, and stopping or deleting its
instance does not end it. Its files reach `state.json` when it ends. Faults cannot be injected.
`FakeIncus` in a test has none of these limits.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from orchestrator.fake_incus.args import parse
from orchestrator.fake_incus.fake import FakeIncus
from orchestrator.fake_incus.model import Project, Store, furnished
from orchestrator.fake_incus.words import NotFaked, Refused
from orchestrator.incus import Completed, Stdin, stdin_of

DIRECTORY_VARIABLE = "PIKACI_FAKE_INCUS_DIR"

_READS_STDIN = ("create", "launch", "exec", "profile create")


def main(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        print(f"{DIRECTORY_VARIABLE} is not set: where is the fake's state?", file=sys.stderr)
        return 2
    try:
        completed = _run(Path(directory), argv)
    except NotFaked as error:
        print(f"the fake incus does not know: {error}", file=sys.stderr)
        return 2
    sys.stderr.buffer.write(completed.stderr)
    return completed.exit_code


def _run(directory: Path, argv: Sequence[str]) -> Completed:
    try:
        verb = parse(argv).verb
    except Refused:
        verb = ""  # the fake reports it later
    stdin = _read_stdin if verb in _READS_STDIN and not sys.stdin.isatty() else stdin_of(bytes)
    if verb != "exec":
        with _state(directory) as store:
            return trio.run(_answer, store, argv, stdin)
    # An exec may take long, and must not hold the lock.
    with _state(directory) as store:
        before = {
            (name, instance.name): set(instance.files)
            for name, project in store.projects.items()
            for instance in project.instances.values()
        }
    completed = trio.run(_answer, store, argv, stdin)
    with _state(directory) as now:
        for name, project in store.projects.items():
            for instance in project.instances.values():
                known = now.projects.get(name, Project()).instances.get(instance.name)
                if known is not None and known.created_at == instance.created_at:
                    known.files |= instance.files
                    for gone in before[name, instance.name] - instance.files.keys():
                        known.files.pop(gone, None)
    return completed


async def _answer(store: Store, argv: Sequence[str], stdin: Stdin) -> Completed:
    async def sink(chunk: bytes) -> None:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()

    async with FakeIncus.open(store=store, epoch=datetime.now(UTC)) as fake:
        return await fake(["incus", *argv], env={}, stdin=stdin, sink=sink)


async def _read_stdin() -> bytes:
    def read() -> bytes:
        # Not by `sys.stdin`: a thread that waits there breaks the interpreter's end.
        return b"".join(iter(lambda: os.read(0, 1 << 16), b""))

    return await trio.to_thread.run_sync(read, abandon_on_cancel=True)


@contextmanager
def _state(directory: Path) -> Iterator[Store]:
    """The daemon's state, for one process at a time; saved when the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = directory / "state.json"
        known = path.exists()
        store = msgspec.json.decode(path.read_bytes(), type=Store) if known else furnished()
        yield store
        new = directory / "state.json.new"
        new.write_bytes(msgspec.json.encode(store))
        new.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
