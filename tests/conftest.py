"""What all tests share: the real Incus must be there, unless a person says otherwise."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from trio.testing import MockClock

from tests.clock import Busy, open_clock, watch_threads
from tests.integration.private_daemon import private_daemon_of_all as private_daemon_of_all
from tests.integration.tls_host import far_of_all as far_of_all
from tests.order import spread

WITHOUT = "PIKACI_TEST_WITHOUT_INCUS"
# Each takes seconds to make: of many workers, one makes it, and runs all tests that want it.
MADE_ONCE = ("chromium", "private_daemon_of_all", "far_of_all", "cluster_of_all", "image_of_all")

KILLS = "kill"  # the directory of the tests that kill pikaci anywhere
# Directories and files of tests that take longest, each dozens of processes or minutes of guests: no
# worker is to begin one when the others are about to end.
LONGEST = {KILLS, "projects", "test_tutorial.py"}

# A machine under load is slow, which says nothing about the code: no test has a deadline, and none
# fails because its examples take long to make. Every run tries the same examples; with
# `--hypothesis-profile=explore` it tries others.
settings.register_profile(
    "pikaci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("explore", settings.get_profile("pikaci"), derandomize=False)
settings.load_profile("pikaci")

# Tests look for what pikaci leaves behind. What Incus is still about to delete is not that, and has
# tests of its own.
os.environ["PIKACI_WAIT_DELETED"] = "1"


@pytest.fixture
def autojump_clock() -> Iterator[MockClock]:
    """Sleeps take no time. The clock stands while a worker thread or a subprocess is waited for."""
    with open_clock() as clock:
        yield clock


@pytest.fixture
def busy() -> Iterator[Busy]:
    """What is waited for outside of trio, in a test on the real clock."""
    with watch_threads() as busy:
        yield busy


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-point",
        action="store_true",
        help="kill at every fault point (`make test-kill`), not at a sample of them",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that share what is dear are run by one worker. None on the real Incus is left out silently."""
    for item in items:
        for fixture in MADE_ONCE:
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(fixture))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONGEST.isdisjoint(item.path.parts))
        items[:] = spread(items, _waits)
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


def _waits(item: pytest.Item) -> bool:
    """Whether a test mostly waits: for guests, or for what it has killed."""
    return item.get_closest_marker("incus") is not None or KILLS in item.path.parts


def _incus_answers() -> bool:
    if shutil.which("incus") is None:
        return False
    query = ["incus", "query", "local:/1.0/projects/pikaci"]
    return subprocess.run(query, capture_output=True, timeout=60).returncode == 0
