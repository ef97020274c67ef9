"""A warning for a large snapshot: people rarely know that they have one, and each run reads it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping

from orchestrator.snapshot.index import Seen
from orchestrator.snapshot.tree import Content
from orchestrator.units import counted, size

LARGE_BYTES = 1 << 30
LARGE_FILES = 50_000
_SHOWN = 3
_MOST = 0.9  # of a directory: then what is in it is more interesting


def large_warning(tree: Mapping[bytes, Content]) -> str | None:
    """What is large in a snapshot of more than `LARGE_BYTES` or `LARGE_FILES`, and what to do."""
    whole = sum([one.size for one in tree.values() if isinstance(one, Seen)])
    if whole <= LARGE_BYTES and len(tree) <= LARGE_FILES:
        return None
    if whole > LARGE_BYTES:
        sizes = {name: one.size if isinstance(one, Seen) else 0 for name, one in tree.items()}
        parts = [f"{_shown(name)} ({size(part)})" for name, part in _largest(sizes)]
    else:
        ones = dict.fromkeys(tree, 1)
        parts = [f"{_shown(name)} ({counted(part, 'file')})" for name, part in _largest(ones)]
    return (
        f"the snapshot has {len(tree)} files, {size(whole)}; the largest parts are"
        f" {', '.join(parts)}: leave out what no job needs,"
        " with .gitignore or `exclude` in [snapshot]"
    )


def _largest(sizes: Mapping[bytes, int]) -> list[tuple[bytes, int]]:
    """The largest directories and files of the first directory that is not nearly all in one."""
    begin, whole = 0, sum(sizes.values())
    while True:
        parts: defaultdict[bytes, int] = defaultdict(int)
        for name, part in sizes.items():
            end = name.find(b"/", begin)
            parts[name if end < 0 else name[:end]] += part
        largest = sorted(parts, key=lambda name: (-parts[name], name))[:_SHOWN]
        within = largest[0] + b"/"
        sizes = {name: part for name, part in sizes.items() if name.startswith(within)}
        if not sizes or parts[largest[0]] < _MOST * whole:
            return [(name, parts[name]) for name in largest]
        begin, whole = len(within), parts[largest[0]]


def _shown(name: bytes) -> str:
    return ascii(os.fsdecode(name))[1:-1][:200]
