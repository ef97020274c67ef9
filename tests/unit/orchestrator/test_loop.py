"""Nothing waits in the thread of the loop: not for files, disks, locks, look-ups or SQL."""

from __future__ import annotations

import fcntl
import os
import pwd
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from orchestrator import Capacity, JobSpec, Orchestrator, Request, Settings
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.testing import open_fake
from states.spec import Mount, SecretSource
from tests import blocking as blocking_calls
from tests.blocking import watch_blocking


async def live(tmp_path: Path) -> None:
    """Jobs of every kind, watched in every way."""
    secret = tmp_path / "secret"
    secret.write_text("hush")
    (tmp_path / "mount").mkdir()
    (tmp_path / "tree").mkdir()
    settings = Settings(
        workspace=tmp_path / "tree", state_root=tmp_path / "root", capacity=Capacity(jobs=4)
    )
    specs = {
        "passes": JobSpec(command="echo one; echo two > /artifacts/a", artifacts=("a",)),
        "fails": JobSpec(command="exit 3"),
        "times-out": JobSpec(command="sleep 100", timeout_secs=1),
        "mounts": JobSpec(
            command="true",
            mounts=(Mount(source=str(tmp_path / "mount"), path="/mnt/data"),),
            secrets={"TOKEN": SecretSource(file=str(secret))},
        ),
    }
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path / "conf", spawn=fake)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            run = await orchestrator.submit_run(Request(tmp_path / "tree", specs, key="once"))
            await orchestrator.submit_run(Request(tmp_path / "tree", specs, key="once"))
            job = run.jobs[0]
            async for _ in job.entries():
                pass
            async for _ in job.log():
                pass
            await run.wait()
            sleeper = await orchestrator.submit(JobSpec(command="sleep 1000"))
            await sleeper.cancel(now=True)
            found = await orchestrator.find_run(run.id)
            await orchestrator.fetch_jobs([one.id for one in found.jobs])
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            left = await orchestrator.submit(JobSpec(command="sleep 3"))
            async for _ in left.events():
                if (await left.fetch()).state == "running":
                    break
            orchestrator.detach()
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            await orchestrator.find_job(left.id)
            await orchestrator.job(left.id).wait()


async def test_nothing_blocks_the_loop(tmp_path: Path) -> None:
    """From the opening of a state root to the second process that goes on with its jobs."""
    with watch_blocking() as blocking:
        await live(tmp_path)

    assert "" == blocking.report()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda path: path.write_text("x"), "file"),
        (lambda path: path.exists(), "file"),
        (lambda path: list(path.parent.iterdir()), "file"),
        (lambda path: os.path.realpath(path), "file"),
        (lambda path: os.fsync(0), "sync"),
        (lambda path: time.sleep(0), "sleep"),
        (lambda path: sqlite3.connect(":memory:").execute("SELECT 1"), "sql"),
        (lambda path: fcntl.flock(0, fcntl.LOCK_UN), "lock"),
        (lambda path: pwd.getpwuid(0), "lookup"),
        (lambda path: socket.gethostbyname("127.0.0.1"), "lookup"),
        (lambda path: subprocess.run(["true"]), "process"),
    ],
)
async def test_calls_that_block_are_found_by_their_kind(
    call: Callable[[Path], object], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the loop; the same call in a worker thread is none."""

    async def product() -> None:
        with suppress(OSError):
            call(tmp_path / "file")
        await trio.to_thread.run_sync(other_thread)

    def other_thread() -> None:
        with suppress(OSError):
            call(tmp_path / "file")

    here = Path(__file__)
    monkeypatch.setattr(blocking_calls, "PRODUCT", str(here.parent) + os.sep)
    with watch_blocking() as blocking:
        await product()
    kinds = {found[0] for found in blocking.found}
    places = {found[3] for found in blocking.found}

    assert kind in kinds
    assert {f"{here.name}:product"} == places


async def test_what_a_caller_does_itself_is_its_own() -> None:
    """A program may ask for a job's properties, and reads the journal at once then."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(JobSpec(command="true"))
        with watch_blocking() as blocking:
            assert job.job.id == job.id

    assert {} == blocking.found
