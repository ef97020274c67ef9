"""The journal's tables: the version of a journal, and migrations to the current one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from orchestrator.journal.errors import JournalDamaged, JournalError, mapped_errors

SCHEMA_VERSION = 11
# Random values that SQL cannot make: name, bytes, and the version that added it.
_DRAWN = (("owner", 8, 1), ("key", 32, 2))


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the journal, at least 1; `JournalError` if we do not know it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: the journal has version {version};"
            f" this pikaci knows version {SCHEMA_VERSION}",
            resolution="use the newer pikaci that wrote it, or another --state-root",
        )
    if tables == 0 and version >= 0:
        # Our journals are complete before they get this name.
        raise JournalDamaged(path, "it has no tables: it was cut short")
    if version <= 0:
        raise JournalError(
            f"{path}: this database is not a pikaci journal",
            resolution="name another with --state-root, or move the file away",
        )
    return int(version)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Migrate the journal to our version, step by step, in the caller's transaction.

    Version 0 is an empty file.
    """
    if version == SCHEMA_VERSION:
        return
    # Here: most commands find the tables as they are, and start faster without these.
    from importlib.resources import files

    from orchestrator.journal.identities import note_identities

    for number in range(version + 1, SCHEMA_VERSION + 1):
        script = (files("orchestrator.journal") / "schema" / f"{number:04}.sql").read_text()
        for statement in _statements(script):
            connection.execute(statement)
    if version < 9:
        note_identities(connection)
    for name, size, since in _DRAWN:
        if version < since:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)", (name, os.urandom(size).hex())
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
    """Raise `JournalDamaged` if SQLite finds the file corrupt, or `owner` or `key` is lost."""
    with mapped_errors(path):
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise JournalDamaged(path, str(found).splitlines()[-1])
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        names = {name for (name,) in connection.execute("SELECT key FROM meta")}
    for name, _, since in _DRAWN:
        if since <= version and name not in names:
            raise JournalDamaged(path, f"it has lost its {name}")
