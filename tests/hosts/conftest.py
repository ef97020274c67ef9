from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import Cluster, three_members
from tests.hosts.far_host import FarHost, far_host
from tests.integration.command import Command


@pytest.fixture
def far() -> Iterator[FarHost]:
    """A host that is reached over ssh."""
    with far_host() as made:
        yield made


@pytest.fixture
def pikaci(tmp_path: Path, far: FarHost) -> Iterator[Command]:
    """pikaci in a workspace, with the far host as the one that runs jobs."""
    command = Command(tmp_path)
    command.env |= far.environment
    yield command
    assert [] == command.leases()


@pytest.fixture(scope="session")
def cluster_of_all() -> Iterator[Cluster]:
    """One for all tests: it takes a minute to make."""
    with three_members() as made:
        yield made


@pytest.fixture
def cluster(cluster_of_all: Cluster) -> Cluster:
    """A cluster of three members, all online."""
    return cluster_of_all
