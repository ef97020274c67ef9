"""Artifact globs: as an expression for the guest's `find`, and as a matcher for the host.

The two read alike. The host does not match by Python's re: names come from the guest, and a glob
with a few stars can then take it longer than the job's whole life.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/ ,:=@%~")


# More characters than the names of one job have; past that, masks are made anew.
_MAX_KNOWN_CHARS = 4096


@dataclass(frozen=True)
class _Token:
    """A part of a glob: its expression, and what a character at its place may be.

    `many`: any number of such characters. `dirs`: nothing, or anything that ends with a `/`.
    """

    regex: str
    takes: Callable[[str], bool]
    many: bool = False
    dirs: bool = False


def _anything(char: str) -> bool:
    return True


def _no_slash(char: str) -> bool:
    return char != "/"


_DIRS = _Token("(.*/)?", _anything, dirs=True)
_ANY = _Token(".*", _anything, many=True)
_STAR = _Token("[^/]*", _no_slash, many=True)
_ONE = _Token("[^/]", _no_slash)
_SLASH = _Token("/", lambda char: char == "/")
_ENTRY = _Token("", lambda char: False)


def _tokens(glob: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(glob):
        rest = glob[at:]
        if rest.startswith("**/"):
            token, size = _DIRS, 3
        elif rest.startswith("**"):
            token, size = _ANY, 2
        elif rest[0] == "*":
            token, size = _STAR, 1
        elif rest[0] == "?":
            token, size = _ONE, 1
        elif rest[0] == "[" and (taken := _set(rest)):
            token, size = _Token(taken[0], _in_set(taken[0])), taken[1]
        else:
            token, size = _Token(_literal(rest[0]), rest[0].__eq__), 1
        # What may be there any number of times is there once.
        if not (tokens and tokens[-1] is token and (token.many or token.dirs)):
            tokens.append(token)
        at += size
    return tokens


def _in_set(regex: str) -> Callable[[str], bool]:
    compiled = re.compile(regex)
    return lambda char: compiled.fullmatch(char) is not None


def glob_regex(glob: str) -> str:
    """The expression for a path that the glob names, or that lies below one it names.

    `*` and `?` stay within one part of a path, `**` crosses them, `[abc]`, `[a-z]` and `[!a]`
    are sets. Names that begin with a dot are like any other.
    """
    return f"{''.join(token.regex for token in _tokens(glob))}(/.*)?"


class GlobSet:
    """Whether any of some globs takes a path; in time that is linear in the path's length."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._automata = [_Automaton(_tokens(glob)) for glob in globs]

    def takes(self, path: str) -> bool:
        return any(automaton.takes(path) for automaton in self._automata)


class _Automaton:
    """One glob. Bit `i` of a state says that step `i` may be due; the last one is the end."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._steps: list[_Token] = []
        self._many = self._entries = 0
        for token in tokens:
            if token.dirs:
                # By itself, so that who is among the directories cannot leave without a slash.
                self._entries |= 1 << len(self._steps)
            for step in (_ENTRY, _ANY, _SLASH) if token.dirs else (token,):
                self._many |= step.many << len(self._steps)
                self._steps.append(step)
        self._end = 1 << len(self._steps)
        self._begin = self._closed(1)
        self._masks: dict[str, tuple[int, int]] = {}

    def takes(self, path: str) -> bool:
        state = self._begin
        for char in path:
            if char == "/" and state & self._end:
                return True  # it lies below what the glob names
            once, again = self._mask(char)
            state = self._closed((state & once) << 1 | state & again)
            if not state:
                return False
        return bool(state & self._end)

    def _closed(self, state: int) -> int:
        """The state with all steps that are due because those before them may be empty."""
        while True:
            may_be_empty = self._many | self._entries
            more = state | (state & may_be_empty) << 1 | (state & self._entries) << 3
            if more == state:
                return state
            state = more

    def _mask(self, char: str) -> tuple[int, int]:
        """The steps that take the character: those that are over with it, and the others."""
        found = self._masks.get(char)
        if found is None:
            takes = sum(1 << i for i, step in enumerate(self._steps) if step.takes(char))
            found = takes & ~self._many, takes & self._many
            if len(self._masks) < _MAX_KNOWN_CHARS:
                self._masks[char] = found
        return found


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
