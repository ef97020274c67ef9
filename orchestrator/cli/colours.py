"""Whether to colour what is written to a stream."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

RESET, BOLD, DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
GREEN, RED, YELLOW, CYAN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[36m"

Paint = Callable[[str, str], str]


def wanted(descriptor: int = 1) -> bool:
    """Whether a stream takes colours: a terminal does.

    `NO_COLOR` (https://no-color.org) turns them off and wins; `FORCE_COLOR` turns them on where
    there is no terminal. Either counts when it is set and not empty.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and os.isatty(descriptor)


def painter(colours: bool) -> Paint:
    """A function that puts a code around a text, where colours are wanted."""

    def paint(code: str, text: str) -> str:
        return f"{code}{text}{RESET}" if colours and code else text

    return paint


def can_print(text: str, descriptor: int = 1) -> bool:
    """Whether the encoding of stdout, or of stderr, has these characters."""
    stream = sys.stdout if descriptor == 1 else sys.stderr
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
