"""The public names have the types that the docs say."""

import subprocess
import sys
from pathlib import Path

API = Path(__file__).with_name("api.py")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_public_api_is_typed() -> None:
    """For whoever embeds pikaci with `mypy --strict`."""
    done = run("mypy", "--strict", "--warn-unused-ignores", str(API))

    assert 0 == done.returncode, done.stdout


def test_it_is_typed_for_pyright_too() -> None:
    """In its strict mode, which editors use; what must be an error is one here, too."""
    done = run("pyright", "--pythonpath", sys.executable, "--project", str(API.parent))

    assert 0 == done.returncode, done.stdout
