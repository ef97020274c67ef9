"""Whatever the locale: what is typed is UTF-8 inside, and what cannot be printed is escaped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.orchestrator.test_ending import COMMAND

WORD = "grüße漢"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="session")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A locale of ISO-8859-1, where it can be made."""
    directory = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("there is no localedef")
    name = "de_DE.ISO-8859-1"
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(directory / name)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("localedef has no sources")
    return {"LC_ALL": name, "LOCPATH": str(directory), "PYTHONUTF8": "0"}


def told(place: Path, word: bytes, *words: str, **env: str) -> tuple[int, bytes]:
    """What is said of a job that is not in the job file."""
    (place / "pikaci.toml").write_text('schema = 1\n[jobs.x]\ncommand = "x"\n')
    variables = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "run", *words, word],
        env={**variables, **env},
        cwd=place,
        capture_output=True,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_utf_8_is_printed_as_it_is(tmp_path: Path) -> None:
    """Also in the locale C, which says nothing of a terminal: so Python and click have it."""
    for env in ({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C"}, ASCII):
        code, said = told(tmp_path, WORD.encode(), **env)
        assert (2, True) == (code, f"no job '{WORD}'".encode() in said)


def test_iso_8859_1_gets_its_characters(tmp_path: Path, latin: dict[str, str]) -> None:
    """And escapes for what it does not have."""
    code, said = told(tmp_path, WORD.encode(), **latin)

    assert (2, True) == (code, "no job 'grüße\\u6f22'".encode("latin-1") in said)


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path, latin: dict[str, str]) -> None:
    """Even where they are characters of the locale: the guest could not tell."""
    for env in (latin, ASCII, {"LC_ALL": "C.UTF-8"}):
        code, said = told(tmp_path, b"gr\xfc", "--", "printf", **env)
        assert (2, True) == (code, b"the command after `--` is not UTF-8" in said)
