"""What `pikaci setup` does to a pool that is there already: on a real daemon, with a real btrfs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.host.doctor import examine
from orchestrator.host.quotas import mount_of, quotas_of
from orchestrator.host.setup import PROFILE, setup
from orchestrator.incus import Host, Incus
from orchestrator.state_root import StateRoot
from tests.integration.private_daemon import PROJECT, PrivateDaemon

pytestmark = pytest.mark.incus


@pytest.fixture
def pool(daemon: PrivateDaemon) -> Iterator[str]:
    """A btrfs pool as Incus makes it: without quotas, until it sets the first limit."""
    name = f"test-{secrets.token_hex(3)}"
    daemon.incus("storage", "create", name, "btrfs", "size=512MiB")
    yield name
    if PROFILE in daemon.incus("profile", "list", "--project", PROJECT, "-f", "csv"):
        daemon.incus("profile", "delete", "--project", PROJECT, PROFILE)
    daemon.incus("storage", "delete", name)


async def test_a_pool_that_is_there_gets_simple_quotas(pool: str, tmp_path: Path) -> None:
    """Whoever made it; and the second time there is nothing to do."""
    incus, host = Incus(tmp_path / "conf", project=PROJECT), Host(project=PROJECT, pool=pool)
    steps: list[str] = []

    assert "off" == quotas_of(mount_of(pool))
    assert await setup(incus, host, say=steps.append, kinds=())
    assert f"turned on simple quotas in the storage pool {pool}" in steps
    assert "simple" == quotas_of(mount_of(pool))
    assert not await setup(incus, host, say=steps.append, kinds=())


async def test_full_quotas_are_told(pool: str, daemon: PrivateDaemon, tmp_path: Path) -> None:
    """They are Incus's own choice at the first limit; set-up cannot change them any more."""
    create = ("create", "--quiet", "--empty", "--project", PROJECT, "--storage", pool, "full")
    daemon.incus(*create, "--device", "root,size=64MiB")
    daemon.incus("delete", "--project", PROJECT, "full")
    incus, host = Incus(tmp_path / "conf", project=PROJECT), Host(project=PROJECT, pool=pool)

    assert "full" == quotas_of(mount_of(pool))
    await setup(incus, host, say=print, kinds=())
    assert "full" == quotas_of(mount_of(pool))
    rows = [row async for row in examine(incus, host, StateRoot(tmp_path / "state"))]
    (row,) = [row for row in rows if row.subject == "storage pool"]
    assert "warning" == row.state
    assert "full quotas" in row.found
    assert f"btrfs quota disable {mount_of(pool)}" in row.remedy
