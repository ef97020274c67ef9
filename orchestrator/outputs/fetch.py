"""Fetches the tree that a job left in its guest, into a directory that is not published yet."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.guest_scripts import NO_DIRECTORY
from orchestrator.attempt.plan import Plan
from orchestrator.contract import contract
from orchestrator.incus import Incus, Sink
from orchestrator.incus.errors import OutputTooLong, failed_call
from orchestrator.outputs.store import TREE, OutputStore
from orchestrator.outputs.tree import BadOutput, TreeWriter
from orchestrator.snapshot.content import Access
from orchestrator.units import size


@dataclass(frozen=True)
class FetchedTree:
    """A complete tree in a `directory` from `OutputStore.begin`; `size` in bytes."""

    directory: Path
    size: int
    entries: int


class _Fetch:
    """One try to fetch a tree. All methods block on the disk."""

    def __init__(self, store: OutputStore, plan: Plan, run: str) -> None:
        user = contract().user
        self.directory = store.begin(run)
        self.writer = TreeWriter(
            self.directory / TREE,
            access=Access((user.uid, user.gid)),
            max_bytes=plan.output_bytes,
        )

    def finish(self) -> FetchedTree:
        """Complete the tree; `BadOutput` if it is not one."""
        self.writer.finish()
        return FetchedTree(self.directory, self.writer.bytes, self.writer.entries)

    def give_up(self) -> None:
        """Delete what was fetched."""
        self.writer.close()
        shutil.rmtree(self.directory, ignore_errors=True)


async def fetch_tree(incus: Incus, plan: Plan, store: OutputStore, *, run: str) -> FetchedTree:
    """Fetch the directory that is the output of a job of this run.

    Raises `BadOutput` if there is none, or if it is not what it must be; and an `IncusError`.
    Unless this returns, nothing is left of it.
    """
    tries: list[_Fetch] = []

    async def give_up() -> None:
        with trio.CancelScope(shield=True):
            while tries:
                await trio.to_thread.run_sync(tries.pop().give_up)

    @asynccontextmanager
    async def receive() -> AsyncIterator[Sink]:
        await give_up()  # this may be another try
        fetch = await trio.to_thread.run_sync(_Fetch, store, plan, run)
        tries.append(fetch)

        async def sink(chunk: bytes) -> None:
            await trio.to_thread.run_sync(fetch.writer.feed, chunk)

        yield sink

    try:
        ended = await incus.perform(commands.fetch_tree(plan), into=receive)
        if ended.exit_code == NO_DIRECTORY:
            raise BadOutput(
                f"there is no directory {plan.output}",
                resolution="the command must leave there what other jobs need",
            )
        if ended.exit_code != 0:
            raise failed_call(ended.argv, ended.exit_code, ended.stderr, on=plan.host.on)
        return await trio.to_thread.run_sync(tries[0].finish)
    except OutputTooLong:
        await give_up()
        raise BadOutput(f"it has more than {size(plan.output_bytes)}") from None
    except BaseException:
        await give_up()
        raise
