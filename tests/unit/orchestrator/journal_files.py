"""Files of journals, as processes that ended or were killed leave them."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import trio

from orchestrator.journal import Journal, open_journal
from states.lifecycle import State
from tests.samples import sample_life


def contents(path: Path) -> dict[str, bytes]:
    """The journal and its write-ahead log, as bytes."""
    return {each.name: each.read_bytes() for each in (path, wal(path)) if each.exists()}


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def read_all(journal: Journal) -> dict[str, State]:
    """Everything that there is to be read."""
    journal.open_leases()
    assert journal.owner and journal.key
    return {row.id: journal.job(row.id).state for row in journal.jobs()}


def write(path: Path, *, jobs: int, copy_to: Path | None = None) -> None:
    """Lives of jobs, one append a job; a copy is made while the journal is open."""

    async def append() -> None:
        with open_journal(path) as journal:
            for number in range(1, jobs + 1):
                life = sample_life()
                await journal.append(
                    *(msgspec.structs.replace(event, job=f"r.{number}") for event in life)
                )
            for file in (path, wal(path)) if copy_to else ():
                shutil.copy(file, copy_to)

    trio.run(append)


def sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def close_to_writers(root: Path) -> None:
    for file in root.iterdir():
        file.chmod(0o400)
    root.chmod(0o500)
