"""A journal that cannot be written is read, and who must write is told."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.state_root import StateRoot
from tests.unit.orchestrator.journal_files import close_to_writers, contents, write

COMMAND = "from orchestrator.cli import main; main()"
# Root may write anywhere, but for what it is not capable of.
AS_ANYONE = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []


def pikaci(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process that may not write what its files' modes forbid."""
    command = [*AS_ANYONE, sys.executable, "-c", COMMAND, *words]
    where = {**os.environ, "PIKACI_STATE_ROOT": str(root)}
    return subprocess.run(command, env=where, cwd=root, capture_output=True, text=True)


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_what_cannot_be_written_can_be_read(unwritable: Path, killed: Path, how: str) -> None:
    """status, list and trace work on a root that is read-only, also after a crash."""
    path = StateRoot(unwritable).journal
    if how == "closed":
        write(path, jobs=1)
    else:
        for file in killed.parent.iterdir():
            shutil.copy(file, unwritable)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT * FROM jobs")  # makes the file of shared memory
    close_to_writers(unwritable)
    before = contents(path)

    for words in (["status"], ["list", "--jobs"], ["trace", "r.1"], ["logs", "r.1"]):
        done = pikaci(unwritable, *words)
        assert (0, "") == (done.returncode, done.stderr), words
        assert "lint" in done.stdout or words[0] == "logs"

    assert before == contents(path)


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        ("resume", 4, "{journal}: the journal cannot be used: "),
        ("cancel --all", 4, "{journal}: the journal cannot be used: "),
        ("gc --keep 0", 2, "{root} cannot be written to"),
    ],
)
def test_who_must_write_says_that_it_cannot(
    unwritable: Path, words: str, code: int, what: str
) -> None:
    """A command that changes things fails on a read-only root with one clear error."""
    path = StateRoot(unwritable).journal
    write(path, jobs=1)
    close_to_writers(unwritable)
    before = contents(path)

    done = pikaci(unwritable, *words.split())

    brief, resolution = done.stderr.splitlines()
    assert code == done.returncode
    assert what.format(journal=path, root=unwritable) in brief
    assert resolution
    assert before == contents(path)
