import pytest
from trio.testing import MockClock


@pytest.fixture
def autojump_clock() -> MockClock:
    """Sleeps take no time; a worker thread gets its moment before the clock jumps."""
    return MockClock(autojump_threshold=0.02)
