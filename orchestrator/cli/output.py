"""JSON on stdout, which is harmless on a terminal too."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from orchestrator.terminal import STEERING_CHARACTERS


def print_json(value: Any, *, indent: bool = False) -> None:
    """Print a document as UTF-8, whatever the locale is; without `indent` on one line."""
    print_bytes(json_bytes(value, indent=indent) + b"\n")


def json_bytes(value: Any, *, indent: bool = False) -> bytes:
    """A document to print.

    JSON itself escapes only the controls below U+0020. Here the others are escaped too, and so is
    what reorders text: to a program the document is the same.
    """
    data = msgspec.json.encode(value)
    text = (msgspec.json.format(data) if indent else data).decode()
    return _escaped(text).encode()


def print_document(data: bytes) -> None:
    """Print a document byte for byte; on a terminal its steering characters as JSON escapes."""
    print_bytes(_escaped(data.decode()).encode() if sys.stdout.isatty() else data)


def print_bytes(data: bytes) -> None:
    """Print bytes behind the text that was printed before them."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _escaped(text: str) -> str:
    return STEERING_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
