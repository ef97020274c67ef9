"""Artifact globs as regular expressions that Python's re and find's POSIX syntax read alike."""

from __future__ import annotations

import re

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/ ,:=@%~")


def glob_regex(glob: str) -> str:
    """The expression for a path that the glob names, or that lies below one it names.

    `*` and `?` stay within one part of a path, `**` crosses them, `[abc]`, `[a-z]` and `[!a]`
    are sets. Names that begin with a dot are like any other.
    """
    out = []
    at = 0
    while at < len(glob):
        rest = glob[at:]
        if rest.startswith("**/"):
            out.append("(.*/)?")
            at += 3
        elif rest.startswith("**"):
            out.append(".*")
            at += 2
        elif rest[0] == "*":
            out.append("[^/]*")
            at += 1
        elif rest[0] == "?":
            out.append("[^/]")
            at += 1
        elif rest[0] == "[" and (taken := _set(rest)):
            out.append(taken[0])
            at += taken[1]
        else:
            out.append(_literal(rest[0]))
            at += 1
    return f"{''.join(out)}(/.*)?"


def any_of(globs: tuple[str, ...]) -> str:
    """The expression for a path that any of the globs takes; of no globs, one for none."""
    return "|".join(f"({glob_regex(glob)})" for glob in globs) or "[^/]/[^/]{0}/"


def _literal(char: str) -> str:
    if char in _PLAIN or not char.isascii():
        return char
    # Not \<, \' and their like: GNU's syntax has meanings of its own for them.
    return f"\\{char}" if char in "^[]\\" else f"[{char}]"


def _set(rest: str) -> tuple[str, int] | None:
    """A set at the beginning of `rest`, and its length; None if it is no plain set."""
    end = rest.find("]", 2)
    inner = rest[1:end]
    negated = inner.startswith("!")
    body = inner[1:] if negated else inner
    if end < 0 or not body or any(char in body for char in "\\[]^/&|~"):
        return None
    taken = f"[{'^/' if negated else ''}{body}]"
    try:
        re.compile(taken)
    except re.error:  # a range that runs backwards
        return None
    return taken, end + 1
