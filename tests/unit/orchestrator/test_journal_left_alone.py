"""What is not a journal of this pikaci is left as it is, and said."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from orchestrator.host.doctor import _journal
from orchestrator.journal import JournalError, JournalReader, open_journal, read_journal
from orchestrator.journal.migrations import SCHEMA_VERSION
from orchestrator.state_root import StateRoot
from tests.unit.orchestrator.journal_files import contents, sql, wal

Opener = Callable[[Path], AbstractContextManager[JournalReader]]


@pytest.mark.parametrize("open_it", [open_journal, read_journal])
def test_a_journal_of_a_newer_pikaci_is_left_alone(written: Path, open_it: Opener) -> None:
    """A newer version is refused with both versions named, and nothing is written."""
    sql(written, "PRAGMA journal_mode = DELETE")
    sql(written, "PRAGMA user_version = 99")
    before = contents(written)

    versions = f"version 99.*version {SCHEMA_VERSION}"
    with (
        pytest.raises(JournalError, match=versions),
        open_it(written),
    ):
        pass

    assert before == contents(written)


def test_a_newer_journal_of_a_killed_process_is_left_alone(killed: Path) -> None:
    """The version counts that is in the write-ahead log; neither file changes."""
    kill = (
        f"c.execute('PRAGMA user_version = 99'); import os; os.kill({os.getpid()}, 0); os._exit(0)"
    )
    script = f"import sqlite3; c = sqlite3.connect({str(killed)!r}); {kill}"
    subprocess.run([sys.executable, "-c", script], check=True)
    before = contents(killed)

    with pytest.raises(JournalError, match="version 99"), open_journal(killed):
        pass

    assert before == contents(killed)
    assert 2 == len(before)


@pytest.mark.parametrize("version", [0, -1])
def test_another_s_database_is_left_alone(tmp_path: Path, version: int) -> None:
    """What has tables that are not ours is no journal, and gets none of ours."""
    path = tmp_path / "journal.sqlite3"
    sql(path, "CREATE TABLE theirs (x)")
    sql(path, f"PRAGMA user_version = {version}")
    before = contents(path)

    with pytest.raises(JournalError, match="not a pikaci journal"), open_journal(path):
        pass

    assert before == contents(path)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    """Damage is one clear error that names the file; the bytes stay for who can save them."""
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(b"not a database" * 100)

    with pytest.raises(JournalError, match=f"{path}.*damaged") as caught, open_journal(path):
        pass

    assert "pikaci doctor" in caught.value.resolution
    assert path.read_bytes() == b"not a database" * 100


ODD = {
    "no bytes": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "its first byte": lambda path: path.write_bytes(path.read_bytes()[:1]),
    "half a header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "a header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "half a page": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    "an empty database": lambda path: (path.unlink(), sql(path, "VACUUM")),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a log alone": lambda path: path.rename(wal(path)),
}


@pytest.mark.parametrize("make_odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("open_it", [open_journal, read_journal])
def test_what_is_cut_short_or_odd_is_not_taken_for_a_new_journal(
    written: Path, make_odd: Callable[[Path], object], open_it: Opener
) -> None:
    """A new one is made only where there is none; what is there stays as it is."""
    make_odd(written)
    before = sorted(path.name for path in written.parent.iterdir())
    bytes_before = contents(written) if written.is_file() else {}

    with (
        pytest.raises(JournalError, match=str(written)) as caught,
        open_it(written),
    ):
        pass

    assert caught.value.resolution
    assert before == sorted(path.name for path in written.parent.iterdir())
    assert bytes_before == (contents(written) if written.is_file() else {})


@pytest.mark.parametrize("make_odd", ODD.values(), ids=ODD)
def test_doctor_says_that_it_is_odd(written: Path, make_odd: Callable[[Path], object]) -> None:
    """And what to do; a link to nowhere, and a log alone, are no journal yet."""
    make_odd(written)
    row = _journal(StateRoot(written.parent))

    assert (row.state != "ok" and row.remedy) or not written.exists()
