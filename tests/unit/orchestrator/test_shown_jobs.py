"""In which order a run's jobs and their logs come to whoever shows the run."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio
from trio.testing import MockClock

from orchestrator.cli.follow import follow
from orchestrator.cli.watch import JsonWatch
from orchestrator.job.handle import LogPiece


class Seen(JsonWatch):
    """Records the calls, in order."""

    def __init__(self) -> None:
        super().__init__(log=True)
        self.told: list[str] = []

    async def log(self, job: str, chunk: bytes) -> None:
        self.told.append(f"log {job}")

    async def ended(self, job: str, *, flaky: bool = False) -> None:
        self.told.append(f"ended {job}")


async def test_a_log_comes_after_its_job(autojump_clock: MockClock) -> None:
    """Of a run that ended long ago, the whole log is there before the first entry is read."""
    seen = Seen()

    async def log(job: str) -> AsyncGenerator[LogPiece, None]:
        yield LogPiece(attempt=1, data=b"line\n", end=5)

    async def until_ended(job: str, known: trio.Event) -> bool:
        await trio.sleep(1)
        seen.told.append(f"entry {job}")
        known.set()
        return False

    await follow(["r.1"], seen, log=log, until_ended=until_ended)

    assert ["entry r.1", "log r.1", "ended r.1"] == seen.told
