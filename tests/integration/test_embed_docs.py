"""The programs of docs/embed.md do what the page says."""

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
