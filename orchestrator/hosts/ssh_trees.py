"""The trees of a host that is reached over ssh."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import trio

from orchestrator.contract import contract
from orchestrator.hosts import ssh_scripts
from orchestrator.hosts.far_shell import Answer, lines_of
from orchestrator.hosts.manifest import Difference, difference, read_manifest
from orchestrator.hosts.pack import pack
from orchestrator.hosts.ssh_link import SshLink
from orchestrator.hosts.ssh_scripts import TREE_NAME
from orchestrator.hosts.trees import Tree
from orchestrator.hosts.volumes import VolumeTrees
from orchestrator.incus import Call
from orchestrator.incus.errors import OutcomeUnknown
from states.errors import PikaciError

SEND_SECS = 1800.0
SWEEP_SECS = 600.0
# Of the trees beside one that is missing there, so many may be what it is made from, newest first.
MOST_BASES = 8
# A tree of which more is different is sent whole.
MOST_CHANGES = 2000
_FULL = re.compile(
    "No space left on device|Disk quota exceeded|Read-only file system"
    r"|Wrote only \d+ of \d+ bytes"  # tar, if a part of a block still had room
)


class NotDelivered(PikaciError):
    """A tree cannot be put on the host, and another try would not help."""


@dataclass(frozen=True)
class FarLook:
    """What a host says of itself: `free` bytes for trees, and commands that it lacks.

    `directory` is "" where trees are volumes.
    """

    user: str
    is_root: bool
    directory: str
    free: int
    missing: tuple[str, ...]
    clock_ahead_secs: float


class SshTrees:
    """Trees in pikaci's directory on a host over ssh. A tree that is there is not sent again.

    Their files must belong to the job's user, or jobs could not write to their scratch copies.
    Where we are neither root nor have that user's number, trees are `volumes`.
    """

    def __init__(self, link: SshLink, volumes: VolumeTrees) -> None:
        self._link = link
        self._volumes = volumes
        self._sending: dict[str, trio.Lock] = {}

    @property
    def directory(self) -> str:
        """pikaci's directory there; below "~" before the host was reached."""
        settings = self._link.settings
        return settings.directory or settings.shared or f"{self._link.home}/.local/state/pikaci"

    @property
    def are_volumes(self) -> bool:
        """Whether the trees are volumes. Known once the host was reached."""
        return self._link.uid not in (0, contract().user.uid)

    def place(self, tree: Tree) -> str:
        if self.are_volumes:
            return self._volumes.place(tree)
        return f"{self.directory}/trees/{tree.name}/tree"

    def observed(self, observe: Callable[[Call], None]) -> Self:
        same = copy(self)
        same._volumes = self._volumes.observed(observe)
        return same

    async def deliver(self, trees: Sequence[Tree], *, lease_secs: float, member: str = "") -> None:
        await self._link.up()
        if self.are_volumes:
            await self._volumes.deliver(trees, lease_secs=lease_secs, member=member)
            return
        by_name = {tree.name: tree for tree in trees}
        for name in (await self._ask(list(by_name), lease_secs)).values("missing"):
            async with self._sending.setdefault(name, trio.Lock()):
                tree = by_name[name]
                bases = await trio.to_thread.run_sync(_siblings, tree)
                # Another job may have sent it meanwhile.
                answer = await self._ask([name], lease_secs, bases)
                if answer.values("missing"):
                    await self._send(tree, answer.values("base"))

    async def sweep(self, *, idle_secs: float, dry_run: bool = False) -> list[str]:
        await self._link.up()
        if self.are_volumes:
            return await self._volumes.sweep(idle_secs=idle_secs, dry_run=dry_run)
        word = secrets.token_hex(8)
        script = ssh_scripts.sweep(self.directory, word, idle_secs=idle_secs, dry_run=dry_run)
        answer = await self._link.ask(script, secs=SWEEP_SECS)
        self._check(answer)
        return answer.values("deleted")

    async def look(self) -> FarLook:
        """What a person should know of the host. Errors are those of `deliver`."""
        await self._link.up()
        answer = await self._link.ask(ssh_scripts.look(self.directory))
        self._check(answer)
        (user,), (now,) = answer.values("user"), answer.values("now")
        (free,) = answer.values("free") or ["0"]
        return FarLook(
            user=user,
            is_root=self._link.uid == 0,
            directory="" if self.are_volumes else self.directory,
            free=int(free) * 1024,
            missing=tuple(answer.values("missing")),
            clock_ahead_secs=int(now) - time.time(),
        )

    async def _ask(
        self, names: Sequence[str], lease_secs: float, bases: Sequence[str] = ()
    ) -> Answer:
        script = ssh_scripts.ask(self.directory, names, bases, lease_secs=lease_secs)
        answer = await self._link.ask(script)
        if answer.exit_code != 0:
            raise self._refused(answer)
        return answer

    async def _send(self, tree: Tree, bases: Sequence[str]) -> None:
        """Send a tree, or what is different from one that is there."""
        for base in bases:
            changes = await trio.to_thread.run_sync(_changes, tree, base)
            if changes is not None:
                answer = await self._feed(tree, changes.send, base=base, remove=changes.remove)
                if "nolinks" not in answer.text.splitlines():
                    self._check(answer)
                    return
        names = await trio.to_thread.run_sync(read_manifest, tree.path)
        self._check(await self._feed(tree, names))

    async def _feed(self, tree: Tree, names: Iterable[bytes], **start: Any) -> Answer:
        pieces = pack(tree.path, names)
        word = secrets.token_hex(8)
        broken: list[Exception] = []

        async def feed(stream: trio.abc.SendStream) -> None:
            try:
                while piece := await trio.to_thread.run_sync(next, pieces, b""):
                    await stream.send_all(piece)
            except (PikaciError, OSError) as error:
                # What is missing of the archive makes the other side throw it away.
                broken.append(error)

        script = ssh_scripts.receive(self.directory, tree.name, word, secs=SEND_SECS, **start)
        answer = await self._link.feed(script, feed, secs=SEND_SECS)
        if broken:
            raise NotDelivered(
                f"a tree cannot be sent to the host {self._link.name}: {broken[0]}"
            ) from broken[0]
        return answer

    def _check(self, answer: Answer) -> None:
        if answer.exit_code != 0:
            raise self._refused(answer)

    def _refused(self, answer: Answer) -> PikaciError:
        name, said = self._link.name, lines_of(answer.text)
        if "cut" in answer.text.splitlines():
            return OutcomeUnknown(f"a tree for the host {name} was cut off", details=said)
        full = _FULL.search(answer.text)
        why = full[0] if full else (said.splitlines() or [f"exit code {answer.exit_code}"])[-1]
        look = f"`pikaci host check {name}` looks at it"
        return NotDelivered(
            f"the directory {self.directory} on the host {name} takes no trees: {why}",
            details=said,
            resolution=f"{look}; `pikaci gc` deletes old trees there" if full else look,
        )


def _siblings(tree: Tree) -> list[str]:
    """The names of trees beside this one, the newest first: it may share files with them."""
    found: list[tuple[float, str]] = []
    if tree.path.name != tree.name:
        return []  # no snapshot: nothing beside it is a tree
    with os.scandir(tree.path.parent) as entries:
        for entry in entries:
            if entry.name != tree.path.name and re.fullmatch(TREE_NAME, entry.name):
                with suppress(OSError):
                    found.append((entry.stat().st_mtime, entry.name))
    return [name for _, name in sorted(found, reverse=True)[:MOST_BASES]]


def _changes(tree: Tree, base: str) -> Difference | None:
    """How the tree differs from the one beside it; None if that is gone, or has little of it."""
    try:
        new, old = read_manifest(tree.path), read_manifest(tree.path.with_name(base))
    except OSError:
        return None
    found = difference(new, old)
    few = len(found.send) + len(found.remove) <= min(MOST_CHANGES, len(new) // 2)
    # Names that go are lines of a script.
    return found if few and not any(b"\n" in name for name in found.remove) else None
