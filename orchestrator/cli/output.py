"""JSON on stdout, which is harmless on a terminal too."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click
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


def print_items(output: str, items: Sequence[Any], document: Any = None) -> bool:
    """Print `json`: the document, by default all items, or `jsonl`: an item a line.

    False for `human`, and nothing is printed.
    """
    if output == "json":
        print_json(items if document is None else document, indent=True)
    elif output == "jsonl":
        for item in items:
            print_json(item)
    return output != "human"


def say_steps(output: str) -> Callable[[str], None]:
    """A function that tells a person of a step: on stderr where stdout is for a document."""
    return partial(click.echo, err=output != "human")


def print_document(data: bytes) -> None:
    """Print a document byte for byte; on a terminal its steering characters as JSON escapes."""
    print_bytes(_escaped(data.decode()).encode() if sys.stdout.isatty() else data)


def print_bytes(data: bytes) -> None:
    """Print bytes behind the text that was printed before them."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _escaped(text: str) -> str:
    return re.sub(STEERING_CHARACTERS, lambda found: f"\\u{ord(found[0]):04x}", text)
