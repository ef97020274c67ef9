"""What one orchestrator drives: jobs on simulated members, and what a large journal costs.

    python -m tests.benchmarks.scale [--jobs 1000] [--members 10] [--history 0] [--open 100]

The orchestrator, its journal and its service are the real ones; the hosts are simulated, and the
clock jumps when nothing happens. So a minute's job takes no time, and what is measured is pikaci's
own work: CPU time, which other processes disturb little. It includes the simulation's own.
`--history` ended jobs are in the journal before. `--open` jobs are left for the next start.
`--profile` says where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import msgspec
import trio

from orchestrator import Capacity, JobSpec, Orchestrator, Request, Settings
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.journal import open_journal
from orchestrator.service.app import make_app
from orchestrator.service.garbage import collect_when_idle
from orchestrator.state_root import StateRoot
from orchestrator.units import size
from states import events as ev
from tests.benchmarks.library import rss_mib
from tests.benchmarks.simulated_hosts import SLOTS, SimulatedHosts, work, write_settings
from tests.clock import open_clock
from tests.samples import sample_life, sample_note

PIKACI = Path(sys.executable).with_name("pikaci")
RUN = 50  # jobs of a run
DIES_EVERY_SECS = 60.0  # one member or another
SPEC = JobSpec(command="make test", timeout_secs=3600)
PAGES = (
    "/v1/jobs?limit=200",
    "/v1/jobs?state=running",
    "/v1/jobs?verdict=infrastructure",
    "/v1/jobs?name=other",
    "/",
    "/runs/{run}",
    "/jobs/{job}",
    "/metrics",
    "/v1/statistics",
)


def show(what: str, figure: str) -> None:
    """A row of the table."""
    print(f"{what:58} {figure:>22}", flush=True)


def ms(secs: float) -> str:
    return f"{secs * 1000:.1f} ms"


class Loop(trio.abc.Instrument):
    """The CPU time of the loop's thread: in all, and the longest step of any task."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.longest: Counter[str] = Counter()
        self._began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        spent = time.thread_time() - self._began
        self.spent += spent
        self.longest[task.name] = max(self.longest[task.name], spent)


@contextmanager
def watching() -> Iterator[Loop]:
    loop = Loop()
    trio.lowlevel.add_instrument(loop)
    try:
        yield loop
    finally:
        trio.lowlevel.remove_instrument(loop)


async def cost(call: Callable[[], Awaitable[object]]) -> float:
    """The CPU seconds of a call, while nothing else happens."""
    spent = time.process_time()
    await call()
    return time.process_time() - spent


@asynccontextmanager
async def opened(base: Path, members: int, hosts: SimulatedHosts) -> AsyncIterator[Orchestrator]:
    settings = Settings(
        workspace=base / "workspace",
        state_root=base / "root",
        capacity=Capacity(jobs=SLOTS * members),
        queue_jobs=20_000,
        host=write_settings(base / "hosts.toml", base),
    )
    async with Orchestrator.open(settings, incus=Incus(base / "conf", spawn=hosts)) as orchestrator:
        yield orchestrator


async def pages(orchestrator: Orchestrator, when: str) -> None:
    """What each answer costs, in CPU time, while all jobs stand still."""
    rows = await orchestrator.reading.journal(lambda: orchestrator.journal.newest(limit=1))
    names = {"{run}": rows[0][1].run, "{job}": rows[0][1].id}
    transport = httpx.ASGITransport(app=make_app(orchestrator))
    async with httpx.AsyncClient(transport=transport, base_url="http://pikaci") as http:
        for path in PAGES:
            place = path
            for name, value in names.items():
                place = place.replace(name, value)
            found: list[int] = []

            async def ask(place: str = place, found: list[int] = found) -> None:
                answer = await http.get(place)
                assert answer.status_code == 200, answer.text
                found.append(len(answer.content))

            await ask()  # templates are read at the first time
            show(f"GET {path}, {when}", f"{ms(await cost(ask))}, {size(found[-1])}")


async def write_history(root: StateRoot, jobs: int) -> None:
    """Jobs that ended long ago, with as many notes as a job has."""
    leases = [sample_note(ev.LeaseOpened), sample_note(ev.LeaseEnded)]
    life = [*sample_life(), *leases, *[sample_note() for _ in range(7)]]
    with open_journal(root.journal) as journal:
        for first in range(0, jobs, RUN):
            entries = []
            for number in range(first, min(first + RUN, jobs)):
                job = f"h{first}.{number}"
                for entry in life:
                    changes = {"job": job}
                    if isinstance(entry, ev.Submitted):
                        changes["run"] = f"h{first}"
                    elif isinstance(entry, ev.LeaseOpened | ev.LeaseEnded):
                        changes["instance"] = f"pikaci-{job}"
                    entries.append(msgspec.structs.replace(entry, **changes))
            await journal.append(*entries)


async def drive(orchestrator: Orchestrator, jobs: int, more: int) -> None:
    """Submit the jobs in runs, and `more` that are not awaited, and see how they are driven."""
    snapshot = await orchestrator.snapshot()
    ended = 0
    marks = {max(1, jobs // 10), jobs}
    at = trio.Event()

    def on_entry(entry: ev.Entry) -> None:
        nonlocal ended
        if isinstance(entry, ev.ResultCollected | ev.Failed):
            ended += 1
            if ended in marks:
                at.set()

    orchestrator.journal.observe(on_entry)
    workspace = orchestrator.root.path.parent / "workspace"

    async def submit() -> None:
        for _ in range(0, jobs + more, RUN):
            specs = {f"job-{number}": SPEC for number in range(RUN)}
            await orchestrator.submit_run(Request(workspace, specs, snapshot=snapshot))

    before, spent, clock = 0, time.process_time(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_when_idle, orchestrator)  # as the service does
        nursery.start_soon(submit)
        while ended < jobs:
            at = trio.Event()
            with watching() as loop:
                await at.wait()
            done, when = ended - before, f"after {ended} jobs"
            show(f"CPU time of a job, {when}", ms((time.process_time() - spent) / done))
            show(f"of it in the loop, {when}", ms(loop.spent / done))
            for name, longest in loop.longest.most_common(3):
                show(f"longest step, {name.rpartition('.')[2]}, {when}", ms(longest))
            show(f"simulated time, {when}", f"{trio.current_time() - clock:.0f} s")
            numbers = orchestrator.statistics()
            show(f"queued, running, {when}", f"{numbers.queued}, {numbers.running}")
            show(f"resident memory, {when}", f"{rss_mib():.0f} MiB")
            files = orchestrator.root.path.glob("journal*")
            sizes = (f"{file.suffix} {size(file.stat().st_size)}" for file in sorted(files))
            show(f"journal's files, {when}", ", ".join(sizes))
            await pages(orchestrator, when)
            before, spent = ended, time.process_time()
        nursery.cancel_scope.cancel()
    show(
        "verdicts", ", ".join(f"{v.value} {n}" for v, n in orchestrator.statistics().ended.items())
    )


async def start(base: Path, members: int, hosts: SimulatedHosts) -> None:
    """Open a root with open jobs, and see how soon they are taken over."""
    gc.collect()
    before, spent = rss_mib(), time.process_time()
    with watching() as loop:
        async with opened(base, members, hosts) as orchestrator, trio.open_nursery() as nursery:
            nursery.start_soon(collect_when_idle, orchestrator)  # as the service does
            show("CPU time of opening the root", ms(time.process_time() - spent))
            journal = orchestrator.journal
            left = len(await orchestrator.reading.journal(journal.unfinished))
            while len(orchestrator._driver.tasks) < left:
                await trio.sleep(0.01)
            show(f"CPU time until {left} open jobs are driven", ms(time.process_time() - spent))
            show(f"memory of {left} open jobs", f"{rss_mib() - before:.0f} MiB")
            for name, longest in loop.longest.most_common(3):
                show(f"longest step, {name.rpartition('.')[2]}, at a start", ms(longest))
            await pages(orchestrator, f"with {left} open jobs")
            nursery.cancel_scope.cancel()
            orchestrator.detach()


def command(base: Path, *words: str) -> None:
    """The CPU time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    root = ("--state-root", str(base / "root"))
    subprocess.run(
        [PIKACI, *words, *root],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    show(f"CPU time of pikaci {' '.join(words)}", ms(spent))


async def main(base: Path, jobs: int, members: int, history: int, more: int) -> None:
    (base / "workspace").mkdir()
    root = StateRoot(base / "root")
    root.make()
    await write_history(root, history)
    async with FakeIncus.open(guest_script=work) as fake, trio.open_nursery() as nursery:
        hosts = SimulatedHosts(fake, members)
        nursery.start_soon(hosts.let_members_die, DIES_EVERY_SECS)
        async with opened(base, members, hosts) as orchestrator:
            await drive(orchestrator, jobs, more)
            orchestrator.detach()
        show("members that died", f"{hosts.deaths}")
        show("incus commands of a job", f"{sum(hosts.calls.values()) / jobs:.1f}")
        await start(base, members, hosts)
        nursery.cancel_scope.cancel()


def after(base: Path, jobs: int) -> None:
    """The files that are left, and what commands cost that look at them."""
    files = {path.name: path.stat().st_size for path in (base / "root").glob("journal*")}
    show("journal, a job", size(sum(files.values()) // jobs))
    with open_journal(StateRoot(base / "root").journal) as journal:
        ((_, run),) = journal.newest_runs(limit=1)
    for words in (("list",), ("list", "--jobs"), ("status", run), ("status", f"{run}.1")):
        command(base, *words)
    command(base, "gc", "--keep", "20", "--dry-run")
    command(base, "gc", "--keep", "20")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, default in (("jobs", 1000), ("members", 10), ("history", 0), ("open", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pikaci-scale-") as name:
        profile = cProfile.Profile(time.thread_time)
        os.environ["PIKACI_HOSTS"] = f"{name}/hosts.toml"
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        with open_clock() as clock:
            numbers = (asked.jobs, asked.members, asked.history, asked.open)
            run = partial(main, Path(name), *numbers)
            if asked.profile:
                profile.runcall(trio.run, run, clock=clock)
                pstats.Stats(profile).sort_stats("tottime").print_stats(40)
            else:
                trio.run(run, clock=clock)
        after(Path(name), asked.history + asked.jobs + asked.open)
