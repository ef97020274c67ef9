"""Rows that need virtual machines: left out loudly where there are none."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.host.machines import makes_machines
from orchestrator.image.store import find_image
from orchestrator.incus import Incus
from orchestrator.settings import open_incus
from states.errors import PikaciError
from states.spec import InstanceType
from tests.integration import command as container_command
from tests.integration.command import Command
from tests.integration.running import Runs

from .machine import Bench, MachineRuns, bench
from .remembered import FILE, Remembered, tree_digest

_CALLED = pytest.StashKey[float]()
_SEEN = pytest.StashKey[tuple[str, Remembered]]()


def _seen(config: pytest.Config) -> tuple[str, Remembered]:
    """Why no row can run here, and the rows that passed; looked up once."""
    if _SEEN not in config.stash:
        why_not, fingerprint = trio.run(_look, bench().image)
        config.stash[_SEEN] = why_not, Remembered(tree_digest(), fingerprint)
    return config.stash[_SEEN]


async def _look(image: str) -> tuple[str, str]:
    """Why no row can run here, and the fingerprint of the image."""
    incus = open_incus()
    try:
        if not await makes_machines(incus):
            return "this Incus makes no virtual machines (`pikaci doctor`)", ""
        found = await find_image(incus, image, InstanceType.VIRTUAL_MACHINE)
    except PikaciError as error:
        return f"{error.brief} (`pikaci setup --vm`)", ""
    return "", found.fingerprint


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vm") is None:
        return
    why_not, remembered = _seen(item.config)
    if why_not:
        pytest.skip(f"{why_not}: virtual machines are NOT tested")
    if row := remembered.rows.get(item.nodeid):
        pytest.skip(f"passed at {row['at']}, in {row['secs']} s; {FILE} remembers it")
    if item.get_closest_marker("two_at_once") and bench().at_once < 2:
        pytest.skip("this host has one VM at a time (PIKACI_TEST_VM_AT_ONCE)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "teardown" and report.passed and item.stash.get(_CALLED, 0.0):
        _seen(item.config)[1].passed(item.nodeid, item.stash[_CALLED])
    if report.when == "call" and report.passed:
        item.stash[_CALLED] = report.duration
    return report


@pytest.fixture
def host() -> Bench:
    """What this host can do, and how slowly."""
    return bench()


@pytest.fixture
def incus() -> Incus:
    """The daemon."""
    return open_incus()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """A workspace and a state root; no machine of theirs outlives the row."""
    made = MachineRuns(tmp_path)
    yield made
    assert [] == trio.run(made.instances)


DEFAULTS = """
schema = 1

[defaults]
image = "{image}"
instance_type = "virtual-machine"
cpus = {cpus}
memory = "1GiB"
disk = "6GiB"
deadlines = {{ start_secs = {start}, ready_secs = {ready}, create_secs = {create} }}
"""


@pytest.fixture
def pikaci(tmp_path: Path, host: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """pikaci in a workspace, whose jobs are VMs by the file's defaults."""
    monkeypatch.setattr(container_command, "SECS", container_command.SECS * host.slow)
    command = Command(tmp_path)
    secs = {"start": 120 * host.slow, "ready": 60 * host.slow, "create": 600 * host.slow}
    command.write(DEFAULTS.format(image=host.image, cpus=host.cpus, **secs))
    yield command
    assert [] == command.leases()
