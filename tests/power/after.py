"""What must be so after a power cut, of what was heard before it and what is found after it. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from states.lifecycle import TERMINAL

Entry = dict[str, Any]
ENDS = frozenset(str(state) for state in TERMINAL)


def whole_lines(heard: bytes) -> list[Entry]:
    """The entries of `run --output jsonl` that arrived whole; the cut may have torn the last."""
    return [json.loads(line) for line in heard.split(b"\n")[:-1] if line.startswith(b"{")]


def problems(
    heard: Sequence[Entry], journal: Sequence[Entry], instances: Iterable[str], jobs: int
) -> list[str]:
    """What does not hold, as lines; none if everything does.

    Every entry that was heard is in the journal, as it was. Every job that was heard of is there,
    and all of its run (`jobs`), if any was; each has one end. No instance is left.
    """
    found = [f"an instance is left: {name}" for name in instances]
    known = Counter(_key(entry) for entry in journal)
    lost = Counter(_key(entry) for entry in heard) - known
    found += [f"an entry is lost: {key}" for key in lost]
    ends = Counter(entry["job"] for entry in journal if entry["type"] in ENDS)
    there = {entry["job"] for entry in journal}
    found += [f"{job} has {ends[job]} ends" for job in sorted(there) if ends[job] != 1]
    if heard and len(there) != jobs:
        found.append(f"of {jobs} jobs, {len(there)} are in the journal")
    return found


def _key(entry: Entry) -> str:
    return json.dumps(entry, sort_keys=True)


def verdicts(journal: Sequence[Entry]) -> str:
    """How the jobs ended, such as `12 result_collected, 8 failed`."""
    ended = Counter(entry["type"] for entry in journal if entry["type"] in ENDS)
    return ", ".join(f"{count} {kind}" for kind, count in ended.most_common()) or "no job"
