from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import pikaci as pikaci
from tests.kill.cases import Cases
from tests.kill.starter import Starter, open_starter


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """What starts pikaci in processes that can be killed at a point."""
    with open_starter(tmp_path_factory.mktemp("starter") / "socket") as starter:
        yield starter


@pytest.fixture
def cases(request: pytest.FixtureRequest, starter: Starter, tmp_path: Path) -> Cases:
    """Scenes for many cases."""
    return Cases(starter, tmp_path, every_point=request.config.getoption("--every-point"))
