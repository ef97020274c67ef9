"""Garbage collection of trees on other hosts: those that no job has needed for a while."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from orchestrator.hosts import Hosts
from states.errors import PikaciError

IDLE_SECS = 86_400.0


async def collect_trees(
    hosts: Hosts, names: Iterable[str], *, idle_secs: float = IDLE_SECS, dry_run: bool
) -> tuple[int, list[str]]:
    """How many trees were, or would be, deleted on these hosts; and why others are left.

    A tree that a job needs has a lease. Any other is only a copy: it is sent again when it is
    needed.
    """
    swept: list[str] = []
    problems: list[str] = []

    async def sweep(name: str) -> None:
        try:
            swept.extend(await hosts.at(name).trees.sweep(idle_secs=idle_secs, dry_run=dry_run))
        except PikaciError as error:
            problems.append(f"trees were not deleted: {error.brief}")

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(sweep, name)
    return len(swept), problems
