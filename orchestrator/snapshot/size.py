"""A warning for a large snapshot: people rarely know that they have one, and each run reads it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping

from orchestrator.snapshot.index import Seen
from orchestrator.snapshot.tree import Content
from orchestrator.units import size

LARGE_BYTES = 1 << 30
LARGE_FILES = 50_000
_SHOWN = 3
_MOST = 0.9  # of a directory: then what is in it is more interesting


def large_warning(tree: Mapping[bytes, Content]) -> str | None:
    """What is large in a snapshot of more than `LARGE_BYTES` or `LARGE_FILES`, and what to do."""
    sizes = {name: one.size if isinstance(one, Seen) else 0 for name, one in tree.items()}
    whole = sum(sizes.values())
    if whole <= LARGE_BYTES and len(sizes) <= LARGE_FILES:
        return None
    if whole > LARGE_BYTES:
        parts = [f"{_shown(name)} ({size(part)})" for name, part in _largest(sizes)]
    else:
        ones = dict.fromkeys(sizes, 1)
        parts = [f"{_shown(name)} ({part} files)" for name, part in _largest(ones)]
    return (
        f"the snapshot has {len(sizes)} files, {size(whole)}; the largest parts are"
        f" {', '.join(parts)}: leave out what no job needs,"
        " with .gitignore or `exclude` in [snapshot]"
    )


def _largest(sizes: Mapping[bytes, int]) -> list[tuple[bytes, int]]:
    """The largest directories and files of the first directory that is not nearly all in one."""
    below: Counter[bytes] = Counter()
    children: defaultdict[bytes, set[bytes]] = defaultdict(set)
    for name, part in sizes.items():
        while name:
            below[name] += part
            parent = os.path.dirname(name)
            children[parent].add(name)
            name = parent
    directory, whole = b"", sum(sizes.values())
    while True:
        largest = sorted(children[directory], key=lambda name: (-below[name], name))[:_SHOWN]
        if largest[0] not in children or below[largest[0]] < _MOST * whole:
            return [(name, below[name]) for name in largest]
        directory, whole = largest[0], below[largest[0]]


def _shown(name: bytes) -> str:
    return ascii(os.fsdecode(name))[1:-1][:200]
