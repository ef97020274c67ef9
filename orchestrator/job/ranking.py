"""Finds the first of many items whose ranks change, without looking at all of them."""

from __future__ import annotations

import heapq
from typing import Any, Generic, Protocol, TypeVar


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


_Rank = TypeVar("_Rank", bound=_Ordered)
# The heap may hold this many outdated ranks before it is rebuilt.
_SPARE = 64


class Ranking(Generic[_Rank]):
    """Names by rank; the lowest rank is first, and the name decides between equal ranks.

    `put` takes logarithmic time; `remove` and `first` take constant time on average.
    """

    def __init__(self) -> None:
        self._ranks: dict[str, _Rank] = {}
        self._heap: list[tuple[_Rank, str]] = []  # contains outdated ranks too

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, name: str) -> bool:
        return name in self._ranks

    def put(self, name: str, rank: _Rank) -> None:
        """Add a name, or change its rank."""
        self._ranks[name] = rank
        heapq.heappush(self._heap, (rank, name))
        if len(self._heap) > 2 * len(self._ranks) + _SPARE:
            self._heap = [(rank, name) for name, rank in self._ranks.items()]
            heapq.heapify(self._heap)

    def remove(self, name: str) -> None:
        """Remove a name."""
        del self._ranks[name]

    def first(self) -> str | None:
        """The name with the lowest rank; None if there are no names."""
        while self._heap:
            rank, name = self._heap[0]
            if self._ranks.get(name) == rank:
                return name
            heapq.heappop(self._heap)
        return None
