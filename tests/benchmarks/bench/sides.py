"""The sides of the benchmark, and the directory that they share."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import trio

from orchestrator import Capacity, Orchestrator, Settings
from tests.benchmarks.bench import peers, plain
from tests.benchmarks.bench.ours import Command, Library, serving
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
    for instance in json.loads(listed.stdout):
        sources = [device.get("source", "") for device in (instance["devices"] or {}).values()]
        marks = [*sources, (instance["config"] or {}).get(BENCH_KEY, "")]
        if any(Path(mark).is_relative_to(BASE) for mark in marks):
            words = ("--project", PROJECT, "--quiet", "--force", f"local:{instance['name']}")
            subprocess.run(["incus", "delete", *words], capture_output=True, check=False)
    shutil.rmtree(BASE, ignore_errors=True)


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
    async with (
        Orchestrator.open(settings) as orchestrator,
        serving(base, served) as service,
    ):
        command, by_service = (Command(base, spec, root) for root in (base / "command", served))
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
            Side("pikaci library", "", Library(orchestrator, spec).run),
            Side("pikaci run", "the time of the verdict", command.run),
            Side(
                "pikaci run, service",
                "the time of the verdict; the figure is that of the command's end",
                by_service.run_by_service,
                service.cpu_secs,
            ),
        ]
