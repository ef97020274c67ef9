"""JSON on stdout, which is harmless on a terminal too."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from orchestrator.terminal import STEERING_CHARACTERS


def print_json(value: Any, *, indent: bool = False) -> None:
    """Print a document as UTF-8, whatever the locale is; without `indent` on one line.

    JSON itself escapes only the controls below U+0020. Here the others are escaped too, and so is
    what reorders text: to a program the document is the same.
    """
    data = msgspec.json.encode(value)
    text = (msgspec.json.format(data) if indent else data).decode()
    shown = STEERING_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.flush()
    sys.stdout.buffer.write(shown.encode() + b"\n")
    sys.stdout.buffer.flush()
