"""A job among the jobs that it needs and those that need it, as a drawing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.service.web.summaries import Summary

# On each side; a drawing stays small however many there are.
MOST = 6
_WIDTH, _HEIGHT = 200, 30
_GAP, _BETWEEN = 8, 60
_NAME = 24  # characters


@dataclass(frozen=True)
class Node:
    """A job as a box at a place, or, without one, how many more there are."""

    job: Summary | None
    name: str
    x: int
    y: int


@dataclass(frozen=True)
class Edge:
    """A line from a job to one that needs it."""

    path: str


@dataclass(frozen=True)
class Graph:
    """The drawing, in pixels, and what it shows in words."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    width: int
    height: int
    words: str


def graph(
    job: Summary, needs: Mapping[str, Mapping[str, str]], others: Mapping[str, Summary]
) -> Graph | None:
    """Draw a job of a run; None if it needs no other, and none needs it.

    `needs` are those of all jobs of the run, `others` the summaries of jobs, by id.
    """
    before = [others[id] for id in needs.get(job.id, {}).values() if id in others]
    after = [
        others[id] for id, needed in needs.items() if job.id in needed.values() and id in others
    ]
    if not before and not after:
        return None
    columns = [column for column in (before, [job], after) if column]
    rows = max(min(len(column), MOST + 1) for column in columns)
    height = rows * (_HEIGHT + _GAP) - _GAP
    placed = [_placed(column, x, height) for x, column in enumerate(columns)]
    edges = [
        Edge(_line(one, other))
        for left, right in pairwise(placed)
        for one in left
        for other in right
    ]
    said = []
    if before:
        said.append(f"needs {_names(before)}")
    if after:
        said.append(f"is needed by {_names(after)}")
    return Graph(
        nodes=tuple(node for column in placed for node in column),
        edges=tuple(edges),
        width=len(columns) * (_WIDTH + _BETWEEN) - _BETWEEN,
        height=height,
        words=f"{job.name} {' and '.join(said)}",
    )


def _placed(jobs: Sequence[Summary], column: int, height: int) -> list[Node]:
    shown: list[tuple[Summary | None, str]] = [(job, _cut(job.name)) for job in jobs[:MOST]]
    if len(jobs) > MOST:
        shown.append((None, f"and {len(jobs) - MOST} more"))
    top = (height - len(shown) * (_HEIGHT + _GAP) + _GAP) // 2
    x = column * (_WIDTH + _BETWEEN)
    return [
        Node(job, name, x, top + row * (_HEIGHT + _GAP)) for row, (job, name) in enumerate(shown)
    ]


def _line(one: Node, other: Node) -> str:
    x, y, to = one.x + _WIDTH, one.y + _HEIGHT // 2, other.y + _HEIGHT // 2
    middle = x + _BETWEEN // 2
    return f"M{x} {y}C{middle} {y} {middle} {to} {other.x} {to}"


def _names(jobs: Sequence[Summary]) -> str:
    more = f" and {len(jobs) - MOST} more" if len(jobs) > MOST else ""
    return ", ".join(job.name for job in jobs[:MOST]) + more


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
