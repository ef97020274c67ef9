from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.conftest import pikaci as pikaci
from tests.kill.starter import Starter, open_starter


@pytest.fixture
async def starter(tmp_path: Path) -> AsyncIterator[Starter]:
    """What starts pikaci in processes that can be killed at a point."""
    async with open_starter(tmp_path / "starter") as starter:
        yield starter
