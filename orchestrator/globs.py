"""Artifact globs: as a regular expression for the guest's `find`, and as a matcher for the host.

Both match the same names. The host does not use Python's re: the guest chooses the names, and could
make a glob with a few stars take longer than the whole job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/ ,:=@%~")


# More than the distinct characters in one job's names; beyond that, masks are not cached.
_MAX_KNOWN_CHARS = 4096


@dataclass(frozen=True)
class _Token:
    """A part of a glob: its regular expression, and which characters it matches.

    `many`: any number of such characters. `dirs`: nothing, or anything that ends with `/`.
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
        # Repeating such a token changes nothing.
        if not (tokens and tokens[-1] is token and (token.many or token.dirs)):
            tokens.append(token)
        at += size
    return tokens


def _in_set(regex: str) -> Callable[[str], bool]:
    compiled = re.compile(regex)
    return lambda char: compiled.fullmatch(char) is not None


def glob_regex(glob: str) -> str:
    """The regular expression for paths that the glob matches, and everything below them.

    `*` and `?` match within one part of a path, `**` across parts; `[abc]`, `[a-z]` and `[!a]` are
    sets. A leading dot in a name is not special.
    """
    return f"{''.join(token.regex for token in _tokens(glob))}(/.*)?"


class GlobSet:
    """Matches paths against globs, in time linear in the length of the path."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._automata = [_Automaton(_tokens(glob)) for glob in globs]

    def takes(self, path: str) -> bool:
        return any(automaton.takes(path) for automaton in self._automata)


class _Automaton:
    """One glob. Bit `i` of a state says that step `i` may come next; the last bit is a match."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._steps: list[_Token] = []
        self._many = self._entries = 0
        for token in tokens:
            if token.dirs:
                # A step of its own, so that the directories can be left only after a slash.
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
                return True  # it is below a path that the glob matches
            once, again = self._mask(char)
            state = self._closed((state & once) << 1 | state & again)
            if not state:
                return False
        return bool(state & self._end)

    def _closed(self, state: int) -> int:
        """Add the steps that may come next because the steps before them may be empty."""
        while True:
            may_be_empty = self._many | self._entries
            more = state | (state & may_be_empty) << 1 | (state & self._entries) << 3
            if more == state:
                return state
            state = more

    def _mask(self, char: str) -> tuple[int, int]:
        """The steps that match the character: those that end with it, and those that repeat."""
        found = self._masks.get(char)
        if found is None:
            takes = sum(1 << i for i, step in enumerate(self._steps) if step.takes(char))
            found = takes & ~self._many, takes & self._many
            if len(self._masks) < _MAX_KNOWN_CHARS:
                self._masks[char] = found
        return found


def any_of(globs: tuple[str, ...]) -> str:
    """The regular expression for paths that any glob matches; without globs, for none."""
    return "|".join(f"({glob_regex(glob)})" for glob in globs) or "[^/]/[^/]{0}/"


def _literal(char: str) -> str:
    if char in _PLAIN or not char.isascii():
        return char
    # Not a backslash for others: in GNU's syntax, \<, \' and the like have meanings of their own.
    return f"\\{char}" if char in "^[]\\" else f"[{char}]"


def _set(rest: str) -> tuple[str, int] | None:
    """The set at the beginning of `rest`, and its length; None if it is not a plain set."""
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
