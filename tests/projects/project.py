"""The projects of other people that pikaci is tried on: what `projects.toml` says of each."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

HERE = Path(__file__).parent


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a dependency: `old`, which is in `file` once, becomes `new`."""

    file: str
    old: str
    new: str
    builds: list[str]
    """The jobs that are run afterwards; all others are reused."""


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A project: where its sources come from, and how its tests are run without pikaci."""

    client: Literal["pip", "npm", "apt"]
    version: str
    sha256: str
    host: str
    """Lines for bash in a copy of the sources. `uv` is there, and what the machine has."""
    counts: Literal["pytest", "tap", "ctest", "automake", "cargo", "xmltest"]
    name: str = ""
    needs: list[str] = []
    """Commands without which there is no run on the host."""
    tag: str = ""
    """Its sources become a git repository with this tag, and without what sdists have instead."""
    small: bool = False
    """`make test` and CI run it too."""
    may_fail: dict[str, str] = {}
    """Tests that fail in a guest, or on some hosts, each with the reason; they count as passed."""
    says: list[str] = []
    """Texts that are in the log of the tests."""
    change: Change | None = None

    @property
    def job_file(self) -> Path | None:
        """The job file, None if `pikaci init` writes it."""
        file = HERE / "files" / f"{self.name}.toml"
        return file if file.exists() else None


@cache
def projects() -> dict[str, Project]:
    """All projects, by name."""
    document = tomllib.loads((HERE / "projects.toml").read_text())
    return {
        name: msgspec.convert({**entry, "name": name}, Project) for name, entry in document.items()
    }
