"""Trees: directories of this machine that guests mount, each named by its content.

On the local host a tree is mounted where it is. To another host it is delivered once, and stays
there for as long as a lease on it runs, or until space is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from orchestrator.incus import Call


@dataclass(frozen=True)
class Tree:
    """A directory of this machine that does not change any more.

    `name` stands for its content: two trees with one name are the same. It has only letters,
    digits, `.`, `_` and `-`, and begins with none of the last three.
    """

    name: str
    path: Path


class Trees(Protocol):
    """The trees of one host."""

    def place(self, tree: Tree) -> str:
        """Where the tree is on the host, or will be: a source for a disk device.

        An absolute path, or the name of a volume in the host's pool. It depends on nothing but the
        host and the tree's name, once the host was reached.
        """
        ...

    def observed(self, observe: Callable[[Call], None]) -> Self:
        """The same trees; the incus commands of deliveries, if any, go to this observer."""
        ...

    async def deliver(self, trees: Sequence[Tree], *, lease_secs: float, member: str = "") -> None:
        """See to it that all the trees are there, whole, and stay for at least `lease_secs`.

        In a cluster they need not be on other members than `member`. Another delivery of the same
        tree may run at the same time. Raises `DaemonUnreachable` or `OutcomeUnknown` if another try
        may help, else another `PikaciError`. After an error or a cancellation no part of a tree
        looks like the whole.
        """
        ...

    async def sweep(self, *, idle_secs: float, dry_run: bool = False) -> list[str]:
        """Delete trees that were last needed `idle_secs` ago, and what broken transfers left.

        Returns what was, or would be, deleted. Errors are those of `deliver`.
        """
        ...


class LocalTrees:
    """Trees of guests that run on this machine. Other parts of pikaci keep and delete them."""

    def place(self, tree: Tree) -> str:
        return str(tree.path)

    def observed(self, observe: Callable[[Call], None]) -> Self:
        return self

    async def deliver(self, trees: Sequence[Tree], *, lease_secs: float, member: str = "") -> None:
        pass

    async def sweep(self, *, idle_secs: float, dry_run: bool = False) -> list[str]:
        return []
