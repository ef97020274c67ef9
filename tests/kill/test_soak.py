"""A short soak, on the real Incus; the long one is a person's to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

SECS = 600


@pytest.mark.incus
def test_a_short_soak_loses_leaks_and_repeats_nothing() -> None:
    """Twelve jobs of all kinds, whose process and clients are killed now and then."""
    soak = [sys.executable, "-m", "tests.benchmarks.soak"]
    done = subprocess.run(
        [*soak, "--jobs", "12", "--at-once", "4", "--kills", "5", "--secs", "60"],
        capture_output=True,
        text=True,
        timeout=SECS,
    )

    assert (0, "") == (done.returncode, done.stderr), done.stdout
