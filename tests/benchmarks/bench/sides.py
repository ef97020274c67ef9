"""The sides of the benchmark, and the directory that they share."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import trio

from orchestrator import Capacity, Orchestrator, Settings
from orchestrator.journal import JournalError, read_journal
from orchestrator.session.reaper import OWNER
from orchestrator.slow_files import in_thread
from tests.benchmarks.bench import peers, plain
from tests.benchmarks.bench.ours import Command, Library, serving, warm_library, warm_root
from tests.benchmarks.bench.plain import (
    ALL,
    BENCH_KEY,
    IMAGE,
    PROJECT,
    WAITS,
    Job,
    Moments,
    spec_of,
)

Run = Callable[[str], Awaitable[Moments]]
# One benchmark at a time has it, and what mounts a directory of it is a guest of the benchmark.
BASE = Path("build/bench").absolute()


def _no_more() -> float:
    return 0.0


@dataclass(frozen=True)
class Side:
    """`run` runs one job with this name, and returns its moments; `Lost` if it has no verdict.

    `elsewhere` is the CPU time, in seconds, of processes that this one did not start for the job.
    """

    name: str
    leaves_out: str
    run: Run
    elsewhere: Callable[[], float] = _no_more


@contextmanager
def base_directory() -> Iterator[Path]:
    """The directory, empty. Guests that an earlier benchmark left are deleted, and at the end ours.

    Raises `SystemExit` while another benchmark of this checkout runs.
    """
    BASE.parent.mkdir(exist_ok=True)
    with open(BASE.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("another benchmark runs") from None
        _clean()
        BASE.mkdir()
        try:
            yield BASE
        finally:
            _clean()


def _clean() -> None:
    listed = subprocess.run(
        ["incus", "list", "--project", PROJECT, "--format", "json"], capture_output=True, check=True
    )
    owner = _owner_of_warm()
    for instance in json.loads(listed.stdout):
        sources = [device.get("source", "") for device in (instance["devices"] or {}).values()]
        config = instance["config"] or {}
        marks = [*sources, config.get(BENCH_KEY, "")]
        if any(Path(mark).is_relative_to(BASE) for mark in marks) or owner == config.get(OWNER, ""):
            words = ("--project", PROJECT, "--quiet", "--force", f"local:{instance['name']}")
            subprocess.run(["incus", "delete", *words], capture_output=True, check=False)
    shutil.rmtree(BASE, ignore_errors=True)


def _owner_of_warm() -> str | None:
    """The owner of the warm guests of an earlier benchmark, which mount nothing; None if none was."""
    path = warm_root(BASE).journal
    if not path.exists():
        return None
    with suppress(JournalError), read_journal(path) as journal:
        return journal.owner
    return None


def _fingerprint() -> str:
    shown = subprocess.run(
        ["incus", "query", f"/1.0/images/aliases/{quote(IMAGE, safe='')}?project={PROJECT}"],
        capture_output=True,
        check=True,
    )
    return str(json.loads(shown.stdout)["target"])


@asynccontextmanager
async def all_sides(base: Path) -> AsyncIterator[list[Side]]:
    """The sides, for as long as the block lasts."""
    spec = spec_of(base)
    fingerprint = _fingerprint()

    def by(way: Callable[[Job], Moments]) -> Run:
        async def run(name: str) -> Moments:
            job = Job(spec, base, fingerprint, name)
            try:
                return await trio.to_thread.run_sync(way, job)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(job.deleted)
                raise

        return run

    settings = Settings(
        workspace=base / "workspace", state_root=base / "library", capacity=Capacity(jobs=16)
    )
    served = base / "service"
    guest = Job(spec, base, fingerprint, f"running-{os.getpid()}")
    async with (
        in_thread(plain.running(guest)),
        Orchestrator.open(settings) as orchestrator,
        warm_library(base, spec) as warm,
        serving(base, served) as service,
    ):
        command, by_service = (Command(base, spec, root) for root in (base / "command", served))

        async def bare_exec(_: str) -> Moments:
            return await trio.to_thread.run_sync(plain.bare_exec, guest)

        yield [
            Side("13 commands", f"{ALL}; {WAITS}", by(plain.seed)),
            Side("6 commands", f"{ALL}; {WAITS}", by(plain.six)),
            Side("3 commands", ALL, by(plain.three)),
            Side("REST", f"{ALL}; the log while the job runs", by(plain.rest)),
            Side(
                "craft-providers",
                f"{ALL}; {WAITS}; the start of its Python, except in the CPU column",
                by(peers.craft_providers),
            ),
            Side(
                "autopkgtest",
                f"{ALL}; mounts, the runner's log and result: it runs the bare command",
                by(peers.autopkgtest),
            ),
            Side(
                "bare exec",
                f"{ALL}; its guest, which runs already; the runner's log and result",
                bare_exec,
            ),
            Side("pikaci library", "", Library(orchestrator, spec).run),
            Side(
                "pikaci library, warm",
                "the creation and the boot of its guest, except in the CPU column",
                warm.run,
            ),
            Side("pikaci run", "the time of the verdict", command.run),
            Side(
                "pikaci run, service",
                "the time of the verdict; the figure is that of the command's end",
                by_service.run_by_service,
                service.cpu_secs,
            ),
        ]
