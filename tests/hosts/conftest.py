from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.hosts.cluster import Cluster, three_members
from tests.hosts.far_host import FarHost, far_host
from tests.hosts.forwarder import Forwarder, forwarder
from tests.integration.command import Command
from tests.integration.tls_host import REMOTE, TlsHost


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


@pytest.fixture
def way(far_of_all: TlsHost) -> Iterator[Forwarder]:
    """The way to the host."""
    with forwarder(far_of_all.address) as made:
        yield made


@pytest.fixture
def tls_pikaci(tmp_path: Path, far_of_all: TlsHost, way: Forwarder) -> Iterator[Command]:
    """pikaci in a workspace, with the far host as the one that runs jobs."""
    command = Command(tmp_path)
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(f'[hosts.build]\nremote = "{REMOTE}"\n')
    state = tmp_path / "state"
    reach = partial(far_of_all.reached, state / "pikaci/incus", address=way.address)
    trio.run(reach)
    command.env |= {
        "PIKACI_HOSTS": str(hosts),
        "PIKACI_HOST": "build",
        "XDG_STATE_HOME": str(state),
        "INCUS_DIR": str(tmp_path / "no-local-incus"),
    }
    yield command
    assert [] == far_of_all.daemon.instances()
    far_of_all.clear()
