"""The journal's tables: which version a journal has, and how it is brought to this pikaci's."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from orchestrator.journal.errors import JournalDamaged, JournalError, mapped_errors

SCHEMA_VERSION = 5
# What the schema cannot draw: name, bytes of randomness, and the version that brought it.
_DRAWN = (("owner", 8, 1), ("key", 32, 2))


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the journal, 1 at least; `JournalError` for what is none that we know."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: the journal has version {version};"
            f" this pikaci knows version {SCHEMA_VERSION}",
            resolution="use the newer pikaci that wrote it, or another --state-root",
        )
    if tables == 0 and version >= 0:
        # Ours are whole before they have their name.
        raise JournalDamaged(path, "it has no tables: it was cut short")
    if version <= 0:
        raise JournalError(
            f"{path}: this database is no journal of pikaci",
            resolution="name another with --state-root, or move the file away",
        )
    return int(version)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the journal to our version, step by step; the caller's transaction holds all steps.

    One of version 0 is empty, and is made.
    """
    if version == SCHEMA_VERSION:
        return
    for number in range(version + 1, SCHEMA_VERSION + 1):
        script = (files("orchestrator.journal") / "schema" / f"{number:04}.sql").read_text()
        for statement in _statements(script):
            connection.execute(statement)
    for name, size, since in _DRAWN:
        if version < since:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)", (name, secrets.token_hex(size))
            )
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script (executescript would commit before the first)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `JournalDamaged` when SQLite finds the file's structure broken, or a name is lost."""
    with mapped_errors(path):
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise JournalDamaged(path, str(found).splitlines()[-1])
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        names = {name for (name,) in connection.execute("SELECT key FROM meta")}
    for name, _, since in _DRAWN:
        if since <= version and name not in names:
            raise JournalDamaged(path, f"it has lost its {name}")
