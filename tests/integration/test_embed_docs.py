"""The programs of docs/embed.md, and the examples beside it, do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "embed.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```.*?```text\n(.*?)```", PAGE, re.DOTALL)

pytestmark = pytest.mark.incus


def run(tmp_path: Path, *argv: str) -> str:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "hello").touch()
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=workspace,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_every_program_of_the_page_is_tried() -> None:
    """Each shows what it prints."""
    assert PAGE.count("```python") == len(PROGRAMS) == 5


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_prints_what_the_page_says(tmp_path: Path, number: int) -> None:
    """Word for word, on the real Incus."""
    text, printed = PROGRAMS[number]
    program = tmp_path / "program.py"
    program.write_text(text)

    assert printed == run(tmp_path, str(program))


def test_apscheduler_runs_jobs_at_set_times(tmp_path: Path) -> None:
    """Two of them."""
    printed = run(tmp_path, str(DOCS / "examples" / "apscheduler_nightly.py"), ".", "2")

    assert [True, True] == [line.endswith(": passed") for line in printed.splitlines()[:2]]


def test_dask_s_tasks_submit_jobs(tmp_path: Path) -> None:
    """From two worker processes, on one state root."""
    printed = run(tmp_path, str(DOCS / "examples" / "dask_matrix.py"), ".")

    assert ["3.10: passed", "3.11: passed", "3.12: passed"] == printed.splitlines()


@pytest.mark.parametrize("example", ["apscheduler_nightly.py", "dask_matrix.py"])
def test_an_example_is_short(example: str) -> None:
    """Under 60 lines."""
    assert len((DOCS / "examples" / example).read_text().splitlines()) < 60
