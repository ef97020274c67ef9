"""What is different between two runs of a job, apart from how long they took. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from states.events import OutputRef, SnapshotRef
from states.identity import effective
from states.job import Job

# Of each kind of changed test so many are named.
MAX_NAMED = 20
# A value of a spec is told in so many characters, a hash by its first ones.
MAX_VALUE = 60
HASH = 12


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the two runs have in different forms; "" where one has none.

    `what` is `commit`, `files`, `image`, `input NAME`, or a key of the spec.
    """

    what: str
    one: str
    other: str


class TestChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Tests that differ between two runs: how many of each kind, and the names of the first.

    `broken` failed only in the second, `fixed` only in the first; the others ran only in one.
    """

    broken_count: int
    fixed_count: int
    added_count: int
    removed_count: int
    broken: tuple[str, ...]
    fixed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def changes(one: Job, other: Job) -> tuple[Change, ...]:
    """What pikaci gave to the two runs that was not the same."""
    return tuple(Change(what=w, one=a, other=b) for w, a, b in _pairs(one, other) if a != b)


def _pairs(one: Job, other: Job) -> Iterator[tuple[str, str, str]]:
    yield "commit", _commit(one.snapshot), _commit(other.snapshot)
    yield "files", _files(one.snapshot), _files(other.snapshot)
    yield "image", _image(one), _image(other)
    for name in sorted({*one.inputs, *other.inputs}):
        yield f"input {name}", _input(one.inputs.get(name)), _input(other.inputs.get(name))
    specs = [effective(job.spec) if job.spec is not None else {} for job in (one, other)]
    for key in sorted({key for spec in specs for key in spec}):
        yield key, _value(specs[0], key), _value(specs[1], key)


def _commit(snapshot: SnapshotRef | None) -> str:
    if snapshot is None or not snapshot.commit:
        return ""
    return snapshot.commit[:HASH] + (" with changes" if snapshot.dirty else "")


def _files(snapshot: SnapshotRef | None) -> str:
    return snapshot.hash[:HASH] if snapshot is not None else ""


def _image(job: Job) -> str:
    return f"{job.image.alias} {job.image.fingerprint[:HASH]}" if job.image is not None else ""


def _input(ref: OutputRef | None) -> str:
    return f"{ref.key[:HASH]}, made by {ref.job}" if ref is not None else ""


def _value(spec: Mapping[str, Any], key: str) -> str:
    if key not in spec:
        return ""
    value = spec[key]
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."


def case_changes(
    before: Mapping[tuple[str, str], bool], now: Mapping[tuple[str, str], bool]
) -> TestChanges | None:
    """The tests that differ, from whether each failed, by suite and name; None if none differs."""
    both = before.keys() & now.keys()
    kinds = {
        "broken": [case for case in both if now[case] and not before[case]],
        "fixed": [case for case in both if before[case] and not now[case]],
        "added": now.keys() - before.keys(),
        "removed": before.keys() - now.keys(),
    }
    if not any(kinds.values()):
        return None
    found: dict[str, Any] = {}
    for kind, cases in kinds.items():
        found[f"{kind}_count"] = len(cases)
        found[kind] = tuple(name for _, name in sorted(cases)[:MAX_NAMED])
    return TestChanges(**found)
