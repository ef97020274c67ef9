"""Changes the file of the user's hosts, and leaves the rest of it as its owner wrote it.

A table is added at the end, and removed with its lines. What comes of it is read before it takes
the file's place. Blocks on the disk.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.hosts.settings import (
    HostSettings,
    parse_hosts,
    settings_of,
)
from states.spec import HOST_ALLOWED, HOST_PATTERN


def add_host(path: Path, name: str, keys: Mapping[str, object]) -> Callable[[], None]:
    """Add a host with these keys; the result undoes it. `UsageError` for mistakes."""
    text = _read(path)
    # First: an error must not name a line that nobody wrote.
    if name in parse_hosts(text.encode(), path):
        raise UsageError(
            f"there is a host {name!r} in {path} already",
            resolution=f"edit the file, or `pikaci host remove {name}` first",
        )
    if not re.match(HOST_PATTERN, name):
        raise UsageError(f"{name!r} is not a valid name of a host", resolution=HOST_ALLOWED)
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    table = "\n".join((f"[hosts.{name}]", *lines))
    _replace(path, f"{text.rstrip()}\n\n{table}\n".lstrip())
    return lambda: _replace(path, text)


def remove_host(path: Path, name: str) -> HostSettings:
    """Remove a host: its table, up to the next one. Returns what it had."""
    text = _read(path)
    settings = settings_of(name, parse_hosts(text.encode(), path))
    head = rf"^\[[ \t]*hosts[ \t]*\.[ \t]*[\"']?{re.escape(name)}[\"']?[ \t]*\][^\n]*\n?"
    rest, count = re.subn(rf"{head}(?:(?!\[)[^\n]*\n?)*", "", text, flags=re.MULTILINE)
    if count != 1 or name in parse_hosts(rest.encode(), path):
        raise UsageError(
            f"the host {name!r} is not written as a table of its own in {path}",
            resolution="remove it with an editor",
        )
    _replace(path, rest)
    return settings


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _replace(path: Path, text: str) -> None:
    parse_hosts(text.encode(), path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            # A link leads to where its owner keeps the file.
            os.replace(new, os.path.realpath(path))
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
