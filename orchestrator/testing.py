"""For tests of programs that embed pikaci: an orchestrator that needs no Incus.

    async with open_fake() as (orchestrator, fake):
        job = await orchestrator.submit(JobSpec(command="exit 3"))
        assert (await job.wait()).verdict is Verdict.FAILED

The fake behaves like the real Incus. Its guests know a few commands (`echo`, `sleep`, `exit`, ...),
or run your `guest_script`; `fake.fail(...)` injects faults. The state root is a temporary
directory, deleted at the end of the block.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.capacity import Capacity, WarmGuests
from orchestrator.fake_incus import FakeIncus, GuestScript, run_handful
from orchestrator.incus import Incus
from orchestrator.orchestrator import Orchestrator
from orchestrator.settings import QUEUE_JOBS, Settings
from states.events import Entry

__all__ = ["open_fake"]


@asynccontextmanager
async def open_fake(
    *,
    guest_script: GuestScript = run_handful,
    capacity: Capacity | None = None,
    queue_jobs: int = QUEUE_JOBS,
    allow_mounts: tuple[Path, ...] | None = None,
    warm: WarmGuests | None = None,
    on_entry: Callable[[Entry], None] | None = None,
) -> AsyncIterator[tuple[Orchestrator, FakeIncus]]:
    """An orchestrator on a fake Incus, over an empty workspace and an empty state root."""
    with tempfile.TemporaryDirectory(prefix="pikaci-test-") as name:
        base = Path(name)
        (base / "workspace").mkdir()
        settings = Settings(
            workspace=base / "workspace",
            state_root=base / "root",
            capacity=capacity or Capacity(jobs=4),
            queue_jobs=queue_jobs,
            allow_mounts=allow_mounts,
            warm=warm,
        )
        async with FakeIncus.open(guest_script=guest_script) as fake:
            incus = Incus(base / "conf", spawn=fake)
            async with Orchestrator.open(settings, incus=incus, on_entry=on_entry) as orchestrator:
                yield orchestrator, fake
