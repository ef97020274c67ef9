"""The public names have the types that the docs say."""

import subprocess
import sys
from pathlib import Path


def test_the_public_api_is_typed() -> None:
    """For whoever embeds pikaci with `mypy --strict`."""
    api = Path(__file__).with_name("api.py")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(api)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert 0 == done.returncode, done.stdout
