"""Processes of pikaci on one state root and one fake daemon, and what is promised of them."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from orchestrator import engine
from orchestrator.capacity import Capacity
from orchestrator.fake_incus import FakeIncus, Instance
from orchestrator.incus import Completed, Incus, Sink
from orchestrator.incus.errors import DaemonUnreachable
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.job.submission import Request
from orchestrator.journal import Journal, open_journal
from orchestrator.session import locks, reaper
from orchestrator.session.control import ask_to_cancel
from orchestrator.session.recovery import recover
from orchestrator.state_root import StateRoot
from states import events as ev
from states import trace
from states.errors import PikaciError
from states.job import Job, fold
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import Deadlines, JobSpec
from tests.processes import Process

DAEMON_SECS = Deadlines().daemon_secs
RETRIES = JobSpec(command="true").retries
# A cancelled job is dead, and says so, within this time.
CANCEL_SECS = 10.0
EVERY = "every run"
LATE_SECS = 60.0  # later than any instance appears
QUIET_SECS = 100_000.0


class Kind(enum.Enum):
    """A job: its command, its limit in seconds, and what it must come to."""

    PASSES = ("echo one; echo two", 100, Verdict.PASSED)
    SLEEPS = ("echo one; sleep 20; echo two", 100, Verdict.PASSED)
    FAILS = ("echo one; exit 3", 100, Verdict.FAILED)
    FAILS_LATE = ("echo one; sleep 20; exit 3", 100, Verdict.FAILED)
    TIMES_OUT = ("echo one; sleep 100; echo two", 10, Verdict.TIMED_OUT)

    @property
    def log(self) -> bytes:
        return b"one\ntwo\n" if self.value[2] is Verdict.PASSED else b"one\n"


@dataclass
class Submitted:
    """A job that was submitted, and what excuses it."""

    kind: Kind
    run: str
    may_be_cancelled: bool = False
    may_be_lost: bool = False
    dead_by: float | None = None  # when it was asked to cancel, and nothing is in the way
    verdict: Verdict | None = None


@dataclass
class World:
    """Everything that a sequence of steps acts on."""

    root: StateRoot
    fake: FakeIncus
    nursery: trio.Nursery
    look: Journal  # the test's own view
    jobs: dict[str, Submitted] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    runs: dict[Process, str] = field(default_factory=dict)  # whose jobs a process drives
    faulty: bool = False
    outages: int = 0
    away_since: float | None = None
    away_secs: float = 0.0

    # The processes.

    def start(self, main: Callable[[Context], Awaitable[None]]) -> Process:
        """Start a process of pikaci's."""

        async def body() -> None:
            with open_journal(self.root.journal) as journal, locks.share_root(self.root.path):
                incus = Incus(self.root.path / "conf", spawn=self._spawn)
                await main(Context(root=self.root, journal=journal, incus=incus))

        process = Process()
        self.processes.append(process)
        self.nursery.start_soon(process.run, body)
        return process

    def living(self) -> list[Process]:
        return [process for process in self.processes if not process.ended.is_set()]

    def run(self, kinds: list[Kind], parallel: int) -> None:
        """`pikaci run`"""
        run = f"run{len(self.runs) + 1}"
        specs = {
            f"{number}-{kind.name}": JobSpec(command=kind.value[0], timeout_secs=kind.value[1])
            for number, kind in enumerate(kinds)
        }
        request = Request(self.root.path, specs)

        async def main(bench: Context) -> None:
            try:
                await engine.run_jobs(bench, request, parallel=parallel, run=run)
            except* DaemonUnreachable:  # there was none to begin with: nothing was submitted
                assert not bench.journal.jobs(run=run)
                self.jobs = {id: job for id, job in self.jobs.items() if job.run != run}

        self.runs[self.start(main)] = run
        for number, kind in enumerate(kinds, start=1):
            self.jobs[f"{run}.{number}"] = Submitted(kind, run, may_be_lost=self._may_lose())

    def resume(self) -> Process:
        """`pikaci resume`"""

        async def main(bench: Context) -> None:
            try:
                await recover(bench, Queue(Capacity(jobs=4)))
                await reaper.reap(bench, await reaper.unneeded(bench))
            except* PikaciError:
                pass  # the daemon is away, and it says so

        process = self.start(main)
        self.runs[process] = EVERY
        return process

    def cancel(self, id: str, *, now: bool) -> None:
        """`pikaci cancel`"""
        job = self.jobs[id]

        async def main(bench: Context) -> None:
            while id in self._known() and not bench.journal.job(id).ended:
                if not await ask_to_cancel(bench.root.locks, job.run, [id], now=now):
                    await recover(bench, Queue(Capacity(jobs=1)), only=[id], cancel=True, hurry=now)
                await trio.sleep(1)

        self.start(main)
        job.may_be_cancelled = True
        if not self._may_lose() and self.outages == 0 and job.dead_by is None:
            job.dead_by = trio.current_time() + CANCEL_SECS

    def terminate(self, process: Process) -> None:
        """Ctrl-C"""
        process.terminate()
        for job in self.jobs.values():
            if self.runs.get(process) in (EVERY, job.run):
                job.may_be_cancelled = True
            job.dead_by = None

    async def kill(self, process: Process) -> None:
        """kill -9"""
        process.kill()
        await process.ended.wait()
        for job in self.jobs.values():
            job.dead_by = None

    # What goes wrong.

    def break_something(self) -> None:
        """From now on a fault of the infrastructure is no surprise."""
        self.faulty = True
        for job in self.jobs.values():
            job.may_be_lost = job.verdict is None
            job.dead_by = None

    def _may_lose(self) -> bool:
        return self.faulty or self.outages > RETRIES or self.away_secs > DAEMON_SECS

    def daemon_down(self) -> None:
        if self.away_since is None:
            self.fake.kill_daemon()
            self.away_since = trio.current_time()
            self.outages += 1

    def daemon_up(self) -> None:
        if self.away_since is not None:
            self.fake.restart_daemon()
            self.away_since = None

    # What is promised.

    async def _spawn(
        self, argv: Sequence[str], *, env: dict[str, str], stdin: bytes, sink: Sink | None
    ) -> Completed:
        try:
            return await self.fake(argv, env=env, stdin=stdin, sink=sink)
        finally:
            self.check_leases()

    def ours(self) -> dict[str, Instance]:
        return {
            name: instance
            for name, instance in self.fake.instances().items()
            if instance.config["user.pikaci.owner"] == self.look.owner
        }

    def _known(self) -> set[str]:
        return {row.id for row in self.look.jobs()}

    def check_leases(self) -> None:
        """Every instance has an open lease."""
        assert set(self.ours()) <= {lease.instance for lease in self.look.open_leases()}

    def check(self, *, anew: bool = False) -> None:
        """What must hold at any time; `anew`: of the jobs that had ended too."""
        if self.away_since is not None:
            self.away_secs += trio.current_time() - self.away_since
            self.away_since = trio.current_time()
        if self._may_lose() or self.outages:
            for job in self.jobs.values():
                job.dead_by = None
                job.may_be_lost |= self._may_lose() and job.verdict is None
        self.check_leases()
        assert "Running" == self.fake.instances()["pikaci-alien"].status
        for row in self.look.jobs():
            if anew or self.jobs[row.id].verdict is None:
                entries = [entry for _, entry in self.look.entries(row.id)]
                self._check_job(self.jobs[row.id], entries, ended=row.ended)

    def _check_job(self, known: Submitted, entries: list[ev.Entry], *, ended: bool) -> None:
        job = fold(entry for entry in entries if isinstance(entry, ev.Event))
        opened = [e.instance for e in entries if isinstance(e, ev.LeaseOpened)]
        closed = [e.instance for e in entries if isinstance(e, ev.LeaseEnded)]
        stored = [lease.instance for lease in self.look.open_leases() if lease.job == job.id]

        assert ended == job.ended
        assert job == trace.replay(trace.encode(job.id, entries))
        assert sorted(stored) == sorted(set(opened) - set(closed))
        assert len(opened) == len(set(opened)) <= job.attempt
        assert known.verdict in (None, job.verdict)
        if job.ended and known.verdict is None:
            known.verdict = job.verdict
            self._check_end(known, job)
        if known.dead_by is not None and trio.current_time() > known.dead_by:
            assert job.ended

    def _check_end(self, known: Submitted, job: Job) -> None:
        allowed = {known.kind.value[2]}
        if known.may_be_cancelled:
            allowed.add(Verdict.CANCELLED)
        if known.may_be_lost:
            allowed.add(Verdict.INFRASTRUCTURE)
        assert job.verdict in allowed, (job.verdict, job.failure)
        log = self.root.attempt_dir(job.id, job.attempt) / "guest.log"
        _, _, lines = (log.read_bytes() if log.exists() else b"").partition(b"\n")
        if job.state is State.RESULT_COLLECTED:
            assert known.kind.log == lines
        else:
            assert known.kind.log.startswith(lines)

    async def come_to_rest(self) -> None:
        """When all goes well again, and pikaci is started once more, nothing is left."""
        self.check()
        self.fake.heal()
        self.away_since = None
        with trio.fail_after(QUIET_SECS):
            for process in self.living():
                await process.ended.wait()
            await self.resume().ended.wait()
        await trio.sleep(LATE_SECS)
        self.check(anew=True)

        assert [] == self.look.unfinished()
        assert [] == self.look.open_leases()
        assert {} == self.ours()
