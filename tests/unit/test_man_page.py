"""The man page: all commands, and nothing that man warns of."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.orchestrator.test_output import ALL

PAGE = Path(__file__).parents[2] / "docs/pikaci.1"


def test_it_has_every_command_and_option() -> None:
    """By the names that are typed."""
    text = PAGE.read_text().replace("\\-", "-")

    for name, command in ALL.items():
        assert f".SS pikaci {name} " in text
        for param in command.params:
            assert all(option in text for option in param.opts if option.startswith("-")), name


def test_man_shows_it_without_a_warning() -> None:
    """Examples keep their lines."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("there is no man")
    done = subprocess.run(
        ["man", "--warnings=all", "-l", str(PAGE)],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MANPAGER": "cat"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "       pikaci run -- make test    run one command, without a job file\n" in done.stdout
