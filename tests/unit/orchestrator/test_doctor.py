"""doctor says of a journal what can be saved, and how; it writes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio

from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from tests import forks
from tests.samples import sample_life


@pytest.fixture
def root(tmp_path: Path) -> StateRoot:
    """A state root, in whose path a shell sees more than one word, with ten jobs."""
    root = StateRoot(tmp_path / "state root")
    root.make()

    async def write() -> None:
        with open_journal(root.journal) as journal:
            for number in range(1, 11):
                life = sample_life()
                await journal.append(
                    *(msgspec.structs.replace(event, job=f"r.{number}") for event in life)
                )

    trio.run(write)
    return root


def pikaci(root: StateRoot, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, where there is no incus."""
    where = {"PATH": "", "HOME": str(root.path), "PIKACI_STATE_ROOT": str(root.path)}
    return forks.run(words, env=where, cwd=Path.cwd(), text=True)


def doctor(root: StateRoot) -> tuple[str, list[str]]:
    """What it says of the journal, and what to type; the bytes stay as they are."""
    before = {path.name: path.read_bytes() for path in root.path.glob("journal*")}
    done = pikaci(root, "doctor")
    after = {path.name: path.read_bytes() for path in root.path.glob("journal*")}

    assert before == after
    assert "" == done.stderr
    lines = done.stdout.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line[9:].startswith("journal "))
    remedies = []
    for line in lines[at + 1 :]:
        if not line.strip().startswith("-> "):
            break
        remedies.append(line.strip().removeprefix("-> "))
    return lines[at], remedies


def test_a_whole_journal_is_ok(root: StateRoot, tmp_path: Path) -> None:
    """It says how many jobs there are; a root without a journal is as well."""
    empty = StateRoot(tmp_path / "empty")
    empty.make()

    assert ("ok       journal        10 jobs", []) == doctor(root)
    assert doctor(empty)[0].startswith("ok       journal        none yet")
    assert not empty.journal.exists()


def test_a_journal_of_a_newer_pikaci_is_not_called_damaged(root: StateRoot) -> None:
    """Both versions are named."""
    with closing(sqlite3.connect(root.journal)) as connection:
        connection.execute("PRAGMA user_version = 99")

    found, remedies = doctor(root)

    assert found.startswith("MISSING  journal")
    assert "version 99" in found
    assert 1 == len(remedies)


def test_an_entry_that_is_not_ours_costs_one_job(root: StateRoot) -> None:
    """SQLite finds nothing wrong, and pikaci does; the other nine can be read."""
    with closing(sqlite3.connect(root.journal)) as connection, connection:
        connection.execute("UPDATE entries SET body = X'00' WHERE job = 'r.5' AND seq = 3")

    found, _ = doctor(root)

    assert found.startswith("DAMAGED  journal")
    assert found.endswith("9 of 10 jobs can be read")


def test_a_lost_owner_is_found(root: StateRoot) -> None:
    """Without its name a root does not know its instances."""
    with closing(sqlite3.connect(root.journal)) as connection, connection:
        connection.execute("DELETE FROM meta WHERE key = 'owner'")

    assert "lost its owner; 10 of 10 jobs" in doctor(root)[0]


def overwrite_page_of(root: StateRoot, name: str) -> None:
    """A table's first page is gone."""
    with closing(sqlite3.connect(root.journal)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)
        ).fetchone()
    with root.journal.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


@pytest.mark.parametrize(
    ("lost", "readable"),
    [("leases", "10 of 10 jobs"), ("entries", "0 of 10 jobs"), ("jobs", "no job")],
)
def test_a_broken_page_costs_what_lay_there(root: StateRoot, lost: str, readable: str) -> None:
    """What the other pages hold can still be read."""
    overwrite_page_of(root, lost)

    found, _ = doctor(root)

    assert found.startswith("DAMAGED  journal")
    assert found.endswith(f"; {readable} can be read")


def test_what_doctor_says_to_type_works(root: StateRoot) -> None:
    """The traces are saved, the journal is moved, a new one is begun, and doctor is content."""
    overwrite_page_of(root, "leases")
    damaged = root.journal.read_bytes()

    _, remedies = doctor(root)
    trace = pikaci(root, "trace", "export", "r.7")
    (move,) = (line.split(";")[0] for line in remedies if line.startswith("mkdir "))
    subprocess.run(["sh", "-c", move], check=True)
    with open_journal(root.journal) as journal:
        jobs = journal.jobs()

    assert any(line.startswith("pikaci trace export JOB") for line in remedies)
    assert "pikaci reap --expired" in remedies[-1]
    assert (0, 1 + len(sample_life())) == (trace.returncode, len(trace.stdout.splitlines()))
    assert damaged == (root.path / "damaged" / root.journal.name).read_bytes()
    assert [] == jobs
    assert doctor(root)[0].startswith("ok ")


def test_rubbish_is_damaged(root: StateRoot) -> None:
    """A file that is no database has no jobs to be saved."""
    root.journal.write_bytes(os.urandom(5000))

    found, remedies = doctor(root)

    assert found.endswith("; no job can be read")
    assert not any("trace" in line for line in remedies)


def test_a_disk_that_is_almost_full_is_told(
    root: StateRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below 1 GiB, the row of the state root says what frees some."""
    from orchestrator.host import doctor as module

    usage = shutil.disk_usage(root.path)._replace(free=5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    row = module._state_root(root)

    assert ("warning", True) == (row.state, "5 MiB free" in row.found)
    assert row.remedy.startswith("pikaci gc")
