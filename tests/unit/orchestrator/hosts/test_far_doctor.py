"""What is said of a host's Incus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.fake_incus import FakeIncus
from orchestrator.host.doctor import examine_incus
from orchestrator.incus import Completed, Host, Incus


@pytest.mark.parametrize(
    ("version", "state"),
    [("6.0.4", "ok"), ("7.2", "ok"), ("0.6", "warning"), ("5.21.1", "warning"), ("", "ok")],
)
async def test_an_incus_that_is_too_old_is_told_in_one_line(
    tmp_path: Path, version: str, state: str
) -> None:
    host = Host(name="build")
    async with FakeIncus.open() as fake:

        async def spawn(argv: Sequence[str], *, sink: Any, **options: Any) -> Completed:
            async def other(chunk: bytes) -> None:
                await sink(chunk.replace(b"6.0.4", version.encode()))

            return await fake(argv, sink=other, **options)

        incus = Incus(tmp_path / "conf", program="true", spawn=spawn).of(host)
        rows = [row async for row in examine_incus(incus, host)]

    (row,) = [row for row in rows if row.subject == "daemon"]
    assert state == row.state
    assert f"Incus {version} answers on build" in row.found
    assert ("older than 6.0" in row.found) == (state == "warning")
