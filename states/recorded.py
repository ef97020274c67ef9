"""Reads and writes stored entries, whichever version of pikaci wrote them, without judging them.

A spec that would be refused today was accepted once, so its limits are not checked here. Keys that
only a newer pikaci knows are ignored. A note that cannot be read is kept unchanged, since it moves
nothing. An event that cannot be read makes its own job unreadable, and no other.
"""

from __future__ import annotations

import functools
from datetime import datetime
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from states import events as ev
from states.errors import EntryError, NewerEntry
from states.mistakes import mistakes, raise_all
from states.spec import JobSpec
from states.upcast import STEPS, Data, upcast, version_of

if TYPE_CHECKING:
    from states.rules import CheckedSpec


class _Head(msgspec.Struct):
    """The fields that decide how to read the rest; an event has a `seq`, a note has none."""

    type: str
    v: int = 1
    seq: int | None = None


class _NoteHead(msgspec.Struct):
    job: str
    at: datetime
    monotonic: float


# Raised for bytes that are not JSON, not UTF-8, nested too deeply, or not an entry.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_KINDS = {ev.tag(kind): kind for kind in ev.WRITTEN_TYPES}
_head = msgspec.json.Decoder(_Head)
_note_head = msgspec.json.Decoder(_NoteHead)


@functools.cache
def _decoder() -> msgspec.json.Decoder[ev.Written]:
    """Made for the first entry: it takes a tenth of the time of a command that only lists jobs."""
    return msgspec.json.Decoder(ev.Written)


def encode(entry: ev.Entry) -> bytes:
    """An entry as it is stored, on one line."""
    return entry.body if isinstance(entry, ev.UnknownNote) else msgspec.json.encode(entry)


def decode(body: bytes) -> ev.Entry:
    """Read an entry, whichever version of pikaci stored it.

    Raises `NewerEntry` for an event that only a newer pikaci can read, `EntryError` for anything
    that is not an entry.
    """
    try:
        # Nearly all entries have the current version, the only one that the decoder takes.
        return _decoder().decode(body)
    except UNREADABLE:
        return _decode_other(body)


def _decode_other(body: bytes) -> ev.Entry:
    """Decode an entry of another version, or one that the current rules refuse."""
    try:
        head = _head.decode(body)
    except UNREADABLE as error:
        raise EntryError(f"it is not an entry: {error}") from None
    try:
        return _read(head, body)
    except (*UNREADABLE, TypeError, NewerEntry) as error:
        if head.seq is None:
            return _kept(head, body)
        if isinstance(error, NewerEntry):
            raise
        raise EntryError(f"the event {head.type} cannot be read: {error}") from None


def _read(head: _Head, body: bytes) -> ev.Entry:
    data: Data = msgspec.json.decode(body)
    if (head.type, head.v) in STEPS:
        data = upcast(data)
        head = msgspec.convert(data, _Head)
    kind = _KINDS.get(head.type)
    if kind is None or head.v > version_of(kind):
        raise NewerEntry(
            f"a newer pikaci wrote the event {head.type}, version {head.v}",
            resolution="use that pikaci, or a newer one, for this job",
        )
    entry: ev.Entry = _without_limits(kind, data)
    return entry


def _without_limits(hint: Any, value: Any) -> Any:
    """Convert the value to the type, without checking limits and without unknown keys."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(value, dict):
        # Type hints without the ranges and patterns that `Annotated` adds.
        hints = get_type_hints(hint)
        known = {name: value[name] for name in hint.__struct_fields__ if name in value}
        return hint(**{name: _without_limits(hints[name], part) for name, part in known.items()})
    if origin is tuple and isinstance(value, list):
        return tuple(_without_limits(args[0], part) for part in value)
    if origin is dict and isinstance(value, dict):
        return {name: _without_limits(args[1], part) for name, part in value.items()}
    if origin in (Union, UnionType) and value is not None:
        # At most one of them is an object.
        is_struct = [isinstance(one, type) and issubclass(one, msgspec.Struct) for one in args]
        fits = [
            one
            for one, is_one in zip(args, is_struct, strict=True)
            if is_one == isinstance(value, dict)
        ]
        return _without_limits(fits[0] if fits else args[0], value)
    return msgspec.convert(value, hint)


def _kept(head: _Head, body: bytes) -> ev.UnknownNote:
    try:
        note = _note_head.decode(body)
    except UNREADABLE as error:
        raise EntryError(f"the note {head.type} cannot be read: {error}") from None
    # Every stored entry is on one line.
    line = msgspec.json.format(body, indent=-1) if b"\n" in body else body
    return ev.UnknownNote(
        job=note.job, at=note.at, monotonic=note.monotonic, kind=head.type, body=line
    )


def judge(body: bytes) -> CheckedSpec:
    """Check the spec of a stored `submitted` event by today's rules, before its job begins.

    Raises `SpecError` when today's rules refuse it, or when it has a key that only a newer pikaci
    knows.
    """
    from states.rules import CheckedSpec

    document = upcast(msgspec.json.decode(body))["spec"]
    raise_all(mistakes(document, JobSpec))
    return CheckedSpec(msgspec.convert(document, JobSpec))
