"""All that is wrong with a document, at once: each mistake with its key and with what is allowed.

msgspec stops at the first one. Here a document that it refuses is looked at part by part.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from states.errors import SpecError, SpecErrors

# What `msgspec.Meta(extra=...)` of a type says for people of the values that it allows.
ALLOWED = "allowed"
# Somebody may have written a secret itself in the place of its source.
_HIDDEN = ("secrets",)
_MOST_SHOWN = 60


def mistakes(value: Any, hint: Any, key: str = "", *, hidden: bool = False) -> list[SpecError]:
    """What keeps a document, decoded from JSON or TOML, from being one of the type.

    `key` is where it stands. Values are not shown when `hidden`.
    """
    if _fits(value, hint):
        return []
    plain = _plain(hint, value)
    where = key or "the document"
    found: list[SpecError] = []
    if _is_struct(plain) and isinstance(value, dict):
        found += _of_struct(value, plain, key, hidden)
    elif get_origin(plain) is dict and isinstance(value, dict):
        names, values = get_args(plain)
        for name, part in value.items():
            if not _fits(name, names):
                found.append(
                    SpecError(
                        key or "the document", f"has the name {name!r}", allowed=_allowed(names)
                    )
                )
            else:
                found += mistakes(part, values, _join(key, name), hidden=hidden)
    elif get_origin(plain) is tuple and isinstance(value, list | tuple):
        for index, part in enumerate(value):
            found += mistakes(part, get_args(plain)[0], f"{key}[{index}]", hidden=hidden)
    if found:
        return found
    shown = "has an invalid value" if hidden else f"is {shown_value(value)}"
    return [SpecError(where, f"{shown}{_near_value(value, plain)}", allowed=_allowed(hint))]


def unknown_keys(given: Iterable[str], known: Sequence[str], key: str = "") -> list[SpecError]:
    """A mistake for each key that is not known."""
    return [
        SpecError(
            _join(key, name),
            f"is an unknown key{(near := did_you_mean(name, known))}",
            allowed="" if near else ", ".join(sorted(known)),
        )
        for name in given
        if name not in known
    ]


def raise_all(found: Iterable[SpecError]) -> None:
    """Raise the mistakes as one error, if there are any."""
    every = tuple(found)
    if every:
        raise one_of(every)


def one_of(every: Sequence[SpecError]) -> SpecError:
    """The mistakes, at least one, as one error."""
    return every[0] if len(every) == 1 else SpecErrors(every)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`: did you mean `x`?`, with the nearest of the known words; empty when none is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean `{near[0]}`?" if near else ""


def shown_value(value: object) -> str:
    """A value as a message shows it: short, and as TOML and JSON write it where they agree."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def _of_struct(value: dict[Any, Any], struct: Any, key: str, hidden: bool) -> Iterator[SpecError]:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    if struct.__struct_config__.forbid_unknown_fields:
        yield from unknown_keys(value, list(fields), key)
    for name, field in fields.items():
        if name in value:
            yield from mistakes(
                value[name], field.type, _join(key, name), hidden=hidden or name in _HIDDEN
            )
        elif field.required:
            yield SpecError(_join(key, name), "is missing", allowed=_allowed(field.type))


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


def _near_value(value: Any, plain: Any) -> str:
    if isinstance(value, str) and isinstance(plain, type) and issubclass(plain, enum.Enum):
        return did_you_mean(value, [member.value for member in plain])
    return ""


def _plain(hint: Any, value: Any = None) -> Any:
    """The type itself: without what `Annotated` adds to it, and without `| None`.

    Of several types it is the one for a table if `value` is one, else the first.
    """
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0], value)
    if get_origin(hint) in (Union, UnionType):
        each = [_plain(one) for one in get_args(hint)]
        tables = [one for one in each if _is_struct(one)]
        return tables[0] if tables and isinstance(value, dict) else each[0]
    return hint


def _allowed(hint: Any) -> str:
    """The values of a type, for people."""
    if get_origin(hint) in (Union, UnionType):
        return _allowed(get_args(hint)[0])
    metas = [meta for meta in get_args(hint)[1:] if isinstance(meta, msgspec.Meta)]
    for meta in metas:
        if meta.extra and ALLOWED in meta.extra:
            return str(meta.extra[ALLOWED])
    plain = _plain(hint)
    if plain is int:
        low = next((meta.ge for meta in metas if meta.ge is not None), None)
        high = next((meta.le for meta in metas if meta.le is not None), None)
        return "a whole number" + (f" from {low} to {high}" if None not in (low, high) else "")
    if plain is str:
        most = next((meta.max_length for meta in metas if meta.max_length), None)
        least = " that is not empty" if any(meta.min_length for meta in metas) else ""
        return f"text{least}" + (f", at most {most} characters" if most else "")
    if plain is bool:
        return "true or false"
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return ", ".join(str(member.value) for member in plain)
    if _is_struct(plain):
        return f"a table of {', '.join(plain.__struct_fields__)}"
    if get_origin(plain) is tuple:
        return "a list"
    return "a table" if get_origin(plain) is dict else ""


def _is_struct(plain: Any) -> bool:
    return isinstance(plain, type) and issubclass(plain, msgspec.Struct)


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
