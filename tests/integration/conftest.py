from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.image.derived import delete_images, images_of
from orchestrator.incus import Incus
from orchestrator.journal import open_journal
from tests.integration.command import Command
from tests.integration.lab import lab as lab
from tests.integration.private_daemon import daemon as daemon
from tests.integration.running import Runs
from tests.integration.tls_host import far as far


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """A workspace and a state root; no instance of theirs outlives the test."""
    made = Runs(tmp_path)
    yield made
    assert [] == trio.run(made.instances)


@pytest.fixture
def images(runs: Runs) -> Iterator[None]:
    """No image that a job of `runs` left outlives the test."""
    yield
    with open_journal(runs.root.journal) as journal:
        owner = journal.owner
    trio.run(_delete_images, runs.incus, owner)


async def _delete_images(incus: Incus, owner: str) -> None:
    await delete_images(incus, await images_of(incus, owner))


@pytest.fixture
def pikaci(tmp_path: Path) -> Iterator[Command]:
    """pikaci in a workspace; it leaves no instance behind."""
    command = Command(tmp_path)
    yield command
    assert [] == command.leases()
