from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.integration.lab import lab as lab
from tests.integration.running import Runs


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """A workspace and a state root; no instance of theirs outlives the test."""
    made = Runs(tmp_path)
    yield made
    assert [] == trio.run(made.instances)
