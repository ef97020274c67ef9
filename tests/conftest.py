"""What all tests share: the real Incus must be there, unless a person says otherwise."""

import os
import shutil
import subprocess

import pytest

WITHOUT = "PIKACI_TEST_WITHOUT_INCUS"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests on the real Incus are never skipped silently."""
    real = [item for item in items if item.get_closest_marker("incus")]
    if not real:
        return
    if os.environ.get(WITHOUT) == "1":
        skip = pytest.mark.skip(reason=f"{WITHOUT}=1: NOT tested on a real Incus")
        for item in real:
            item.add_marker(skip)
    elif not _incus_answers():
        pytest.exit(
            f"no Incus daemon answers, and {len(real)} tests need one: `make setup` starts one;"
            f" {WITHOUT}=1 leaves these tests out",
            returncode=3,
        )


def _incus_answers() -> bool:
    if shutil.which("incus") is None:
        return False
    query = ["incus", "query", "local:/1.0/projects/pikaci"]
    return subprocess.run(query, capture_output=True, timeout=60).returncode == 0
