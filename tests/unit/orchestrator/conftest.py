"""A fake Incus for the tests of the fake itself, directories for those of snapshots, and journals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.fake_incus import FakeIncus
from tests.unit.orchestrator.fake_host import Host
from tests.unit.orchestrator.journal_files import write


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


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A journal as a killed process leaves it: three jobs, all still in the write-ahead log."""
    path, left = tmp_path / "journal.sqlite3", tmp_path / "left"
    left.mkdir()
    write(path, jobs=3, copy_to=left)
    return left / path.name


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal that was closed, with ten jobs."""
    path = tmp_path / "journal.sqlite3"
    write(path, jobs=10)
    return path


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A state root in which nothing can be written, but by root."""
    root = tmp_path / "root"
    root.mkdir()
    yield root
    root.chmod(0o700)
