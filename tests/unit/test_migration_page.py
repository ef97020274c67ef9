"""docs/migration.md says what the things of the past give, in the very words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import forks

PAGE = (Path(__file__).parents[2] / "docs/migration.md").read_text()
MODE = "PIKACI_REMOTE_LINUX_VM_INCUS_MODE"


def pikaci(directory: Path, *words: str, job: str = "", **variables: str) -> tuple[int, str]:
    """Run it there, with a job that has these keys: exit code, and all that was said."""
    (directory / "pikaci.toml").write_text(f'schema = 1\n[jobs.a]\ncommand = "true"\n{job}')
    environment = {"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(directory), **variables}
    done = forks.run(words, cwd=directory, env=environment, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["run", "status", "serve", "setup"])
@pytest.mark.parametrize("value", ["transfer", "single-host-shared", ""])
def test_the_variable_is_refused(tmp_path: Path, verb: str, value: str) -> None:
    """By every command, whatever it is set to, and before anything is made."""
    code, said = pikaci(tmp_path, verb, **{MODE: value})

    words = f"{MODE} is set, but the modes were removed: there is one way to run a job"
    assert 2 == code
    assert words in said
    assert words in PAGE
    assert ["pikaci.toml"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("key", ["mode", "incus_mode", "remote_incus_closure_dir"])
def test_a_key_of_the_past_is_unknown(tmp_path: Path, key: str) -> None:
    """It is named, with those that there are."""
    code, said = pikaci(tmp_path, "run", job=f'{key} = "transfer"\n')

    assert 2 == code
    assert f"jobs.a.{key} is an unknown key" in said
    assert "is an unknown key" in PAGE


def test_a_flag_of_the_past_is_unknown(tmp_path: Path) -> None:
    """There is no mode to be given."""
    code, said = pikaci(tmp_path, "run", "--mode", "transfer")

    assert 2 == code
    assert "there is no option" in said
    assert "there is no option" in PAGE


def test_a_writable_workspace_is_rejected(tmp_path: Path) -> None:
    """In the words that it always had."""
    code, said = pikaci(tmp_path, "run", job="writable_workspace = true\n")

    words = "remote Linux VM backend `incus` does not support writable workspace jobs"
    assert 2 == code
    assert words in said
    assert "scratch = true" in said
    assert words in PAGE
