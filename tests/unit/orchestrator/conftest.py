"""A fake Incus for the tests of the fake itself, and directories for those of snapshots."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.fake_incus import FakeIncus
from tests.unit.orchestrator.fake_host import Host


@pytest.fixture
async def fake() -> AsyncIterator[FakeIncus]:
    async with FakeIncus.open() as fake:
        yield fake


@pytest.fixture
def host(fake: FakeIncus, tmp_path: Path) -> Host:
    return Host(fake, tmp_path / "conf")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    made = tmp_path / "snapshots"
    made.mkdir(mode=0o700)
    return made
