"""A project's tree, as far as it is looked at: names of files, and the text of some."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

# Files whose text is worth reading, by their paths; everything else is only a name.
READ = (
    "*CMakeLists.txt",
    "*requirements*.txt",
    "Cargo.toml",
    "GNUmakefile",
    "Makefile",
    "configure.ac",
    "configure.in",
    "go.mod",
    "makefile",
    "package.json",
    "pyproject.toml",
    "pytest.ini",
    "setup.cfg",
    "setup.py",
    "tox.ini",
)


@dataclass(frozen=True)
class Tree:
    """`files` are the paths, relative to the workspace, with their text: "" if it was not read.

    Nobody vouches for the files: text that cannot be parsed counts as empty. `has_commit` if the
    workspace is the root of a git repository with a commit. `host_has_mirrors` if settings of this
    host say where it gets packages from.
    """

    files: Mapping[str, str]
    has_commit: bool = False
    host_has_mirrors: bool = False

    def __contains__(self, path: str) -> bool:
        return path in self.files

    def text(self, path: str) -> str:
        """The text of a file, "" if there is none."""
        return self.files.get(path, "")

    def first(self, *paths: str) -> str:
        """The first of the paths that is there, "" if none is."""
        return next((path for path in paths if path in self.files), "")

    def matching(self, *globs: str) -> list[str]:
        """The paths that match a glob; `*` also matches a `/`."""
        return sorted(path for path in self.files if any(fnmatchcase(path, g) for g in globs))

    def has_directory(self, name: str) -> bool:
        """Whether there are files below a directory."""
        return any(path.startswith(f"{name}/") for path in self.files)

    def toml(self, path: str) -> dict[str, Any]:
        """A file as TOML."""
        try:
            return tomllib.loads(self.text(path).removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            return {}

    def json(self, path: str) -> dict[str, Any]:
        """A file as a JSON object."""
        try:
            document = json.loads(self.text(path).removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    def ini(self, path: str) -> ConfigParser:
        """A file in the form of `setup.cfg` and `tox.ini`."""
        return parse_ini(self.text(path))


def parse_ini(text: str) -> ConfigParser:
    """A text in the form of `setup.cfg` and `tox.ini`."""
    parser = ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except (Error, ValueError):
        return ConfigParser(interpolation=None)
    return parser


def below(document: Any, *keys: str) -> Any:
    """What is under keys of nested tables; an empty table where something else is on the way."""
    for key in keys:
        document = document.get(key, {}) if isinstance(document, dict) else {}
    return document


def table(document: Any, *keys: str) -> dict[str, Any]:
    """The table under the keys; empty for anything else."""
    found = below(document, *keys)
    return found if isinstance(found, dict) else {}


def strings(document: Any, *keys: str) -> list[str]:
    """The texts in the list under the keys; empty for anything else."""
    found = below(document, *keys)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
