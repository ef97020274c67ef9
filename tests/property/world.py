"""Processes of pikaci on one state root and one fake daemon, and what is promised of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from orchestrator import engine
from orchestrator.capacity import Capacity, WarmGuests
from orchestrator.errors import UsageError
from orchestrator.fake_incus import FakeIncus, Instance
from orchestrator.hosts.heartbeat import Heartbeat
from orchestrator.incus import Completed, Host, Incus, Sink, Stdin
from orchestrator.incus.errors import DaemonUnreachable
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.job.submission import Request
from orchestrator.journal import Journal, open_journal
from orchestrator.service import serving
from orchestrator.service.types import SubmitRun
from orchestrator.session import locks, reaper
from orchestrator.session.away import HostAway
from orchestrator.session.cancel import cancel_jobs
from orchestrator.session.control import REASON
from orchestrator.session.recovery import recover
from orchestrator.settings import Settings
from orchestrator.state_root import StateRoot
from states import events as ev
from states import trace
from states.errors import PikaciError
from states.job import Job, fold
from states.lifecycle import TERMINAL, State
from states.outcome import Verdict
from states.spec import Deadlines, JobSpec
from tests.processes import Process
from tests.property.customers import Customer, Wire, cancel
from tests.property.kinds import Kind
from tests.property.rules import REFUSAL, Rulebook, Rules

DAEMON_SECS = Deadlines().daemon_secs
RETRIES = JobSpec(command="true").retries
# A cancelled job is dead, and says so, within this time.
CANCEL_SECS = 10.0
EVERY = "every run"
LATE_SECS = 60.0  # later than any instance appears
QUIET_SECS = 20_000.0
_COMMAND_BEGUN = (State.RUNNING, State.CANCELLING, *TERMINAL)


@dataclass
class Submitted:
    """A job that was submitted, and what excuses it."""

    kind: Kind
    run: str = ""  # of a service's it is known when the job is seen
    id: str = ""
    state: State = State.NEW
    may_be_cancelled: bool = False
    may_be_lost: bool = False
    may_be_refused: bool = False
    must_be_refused: bool = False  # it had not begun when the rules were changed
    dead_by: float | None = None  # when it was asked to cancel, and nothing is in the way
    verdict: Verdict | None = None


@dataclass
class World:
    """Everything that a sequence of steps acts on."""

    root: StateRoot
    fake: FakeIncus
    nursery: trio.Nursery
    look: Journal  # the test's own view
    wire: Wire
    rulebook: Rulebook
    host: Host = field(default_factory=Host)
    jobs: dict[str, Submitted] = field(default_factory=dict)  # by their names
    customers: list[Customer] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    runs: dict[Process, str] = field(default_factory=dict)  # whose jobs a process drives
    service: Process | None = None
    faulty: bool = False
    outages: int = 0
    away_since: float | None = None
    away_secs: float = 0.0

    # The processes.

    def start(self, main: Callable[[Context], Awaitable[None]], *, shares: bool = True) -> Process:
        """Start a process of pikaci's; one that `shares` the root is refused beside a service."""

        async def body() -> None:
            with (
                suppress(locks.RootHeld),
                open_journal(self.root.journal) as journal,
                locks.share_root(self.root.path) if shares else nullcontext(),
            ):
                incus = self._incus()
                await main(Context(root=self.root, journal=journal, incus=incus, host=self.host))

        return self._start(body)

    def _start(self, body: Callable[[], Awaitable[None]]) -> Process:
        process = Process()
        self.processes.append(process)
        self.nursery.start_soon(process.run, body)
        return process

    def _incus(self) -> Incus:
        incus = Incus(self.root.path / "conf", spawn=self._spawn)
        if self.host.is_local:
            return incus
        far = incus.of(self.host)
        return far.while_alive(Heartbeat(far).present)

    def serve(self, *, warm: int = 0) -> Process:
        """`pikaci serve`, which is refused beside others."""
        settings = Settings(
            workspace=self.root.path,
            state_root=self.root.path,
            capacity=Capacity(jobs=2),
            warm=WarmGuests(size=warm, idle_secs=100) if warm else None,
        )
        doors = serving.Endpoints(serving.default_socket(self.root))

        async def body() -> None:
            try:
                await serving.serve(settings, doors, incus=self._incus())
            except* UsageError:
                pass

        self.service = self._start(body)
        return self.service

    def submit(self, kinds: list[Kind]) -> None:
        """`pikaci run` beside a service: a client of it, with a key of its own."""
        key = f"key{len(self.customers) + 1}"
        asked = SubmitRun(workspace=str(self.root.path), jobs=self._specs(key, kinds))
        self._enter(Customer(key, asked))

    def submit_again(self, customer: Customer) -> None:
        """Another client that sends the same under the same key."""
        self._enter(Customer(customer.key, customer.asked))

    def _enter(self, customer: Customer) -> None:
        self.customers.append(customer)
        self.nursery.start_soon(customer.live, self.wire.path)

    def _specs(self, prefix: str, kinds: list[Kind]) -> dict[str, JobSpec]:
        specs = {}
        for number, kind in enumerate(kinds):
            name = f"{prefix}/{number}-{kind.name}"
            specs[name] = JobSpec(command=kind.value[0], timeout_secs=kind.value[1])
            self.jobs[name] = Submitted(
                kind, may_be_lost=self._may_lose(), may_be_refused=self.rulebook.refuses(kind)
            )
        return specs

    async def upgrade(self, rules: Rules) -> None:
        """Every process is killed; from now on they are of a version with these rules."""
        for process in self.living():
            await self.kill(process)
        self.check()
        self.rulebook.follow(rules)
        for job in self.jobs.values():
            refused = job.verdict is None and self.rulebook.refuses(job.kind)
            job.may_be_refused |= refused and job.state not in _COMMAND_BEGUN
            job.must_be_refused = refused and job.state is State.SUBMITTED

    def living(self) -> list[Process]:
        return [process for process in self.processes if not process.ended.is_set()]

    def run(self, kinds: list[Kind], parallel: int) -> None:
        """`pikaci run`"""
        run = f"run{len(self.runs) + 1}"
        request = Request(self.root.path, self._specs(run, kinds))

        async def main(context: Context) -> None:
            try:
                await engine.run_jobs(context, request, parallel=parallel, run=run)
            except* DaemonUnreachable:  # there was none to begin with: nothing was submitted
                assert not context.journal.jobs(run=run)

        self.runs[self.start(main)] = run
        for number, name in enumerate(request.specs, start=1):
            self.jobs[name].run, self.jobs[name].id = run, f"{run}.{number}"

    def resume(self) -> Process:
        """`pikaci resume`"""

        async def main(context: Context) -> None:
            try:
                await recover(context, Queue(Capacity(jobs=4)))
                await reaper.reap(context, await reaper.unneeded(context))
            except* PikaciError:
                pass  # the daemon is away, and it says so

        process = self.start(main)
        self.runs[process] = EVERY
        return process

    def cancel(self, name: str, *, now: bool) -> None:
        """`pikaci cancel`"""
        job = self.jobs[name]

        if job.id not in self._known():
            return  # `there is no job`

        async def main(context: Context) -> None:
            with suppress(HostAway):
                await cancel_jobs(context, {job.id: job.run}, tasks=None, reason=REASON, hurry=now)

        self.start(main, shares=False)
        job.may_be_cancelled = True
        if not self._may_lose() and self.outages == 0 and job.dead_by is None:
            job.dead_by = trio.current_time() + CANCEL_SECS

    def cancel_by_service(self, name: str, *, now: bool) -> None:
        """The same, by a client of the service."""
        job = self.jobs[name]
        if job.id not in self._known():
            return
        job.may_be_cancelled = True
        self.nursery.start_soon(partial(cancel, self.wire.path, job.id, now=now))

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
        self, argv: Sequence[str], *, env: dict[str, str], stdin: bytes | Stdin, sink: Sink | None
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
            known = self.jobs[row.name]
            if row.state is State.REJECTED:
                assert known.may_be_refused
                continue
            assert known.id in ("", row.id), "submitted twice"
            known.id, known.run, known.state = row.id, row.run, row.state
            if anew or known.verdict is None:
                self._check_job(known, self._entries(row.id), ended=row.ended)

    def _entries(self, job: str) -> list[ev.Entry]:
        return [entry for _, entry in self.look.entries(job)]

    def _check_job(self, known: Submitted, entries: list[ev.Entry], *, ended: bool) -> None:
        job = fold(entry for entry in entries if isinstance(entry, ev.Event))
        opened = [e.instance for e in entries if isinstance(e, ev.LeaseOpened | ev.LeaseClaimed)]
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
        if known.must_be_refused:
            allowed -= {known.kind.value[2]}
        if known.may_be_refused and job.failure and REFUSAL.fullmatch(job.failure.message):
            allowed.add(Verdict.REJECTED)
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
        self.wire.heal()
        self.away_since = None
        with trio.fail_after(QUIET_SECS):
            for process in self.living():
                if process is not self.service:
                    await process.ended.wait()
            await self._serve_customers()
            await self.resume().ended.wait()
        await trio.sleep(LATE_SECS)
        self.check(anew=True)
        for customer in self.customers:
            self._check_customer(customer)

        assert [] == self.look.unfinished()
        assert [] == self.look.open_leases()
        assert {} == self.ours()

    async def _serve_customers(self) -> None:
        """Until each has what it wants; then nobody serves any more."""
        for customer in self.customers:
            while not customer.ended.is_set():
                # One that was there a moment ago may have been asked to end.
                if self.service not in self.living():
                    self.serve()
                with trio.move_on_after(1):
                    await customer.ended.wait()
        if self.service in self.living():
            assert self.service is not None
            self.terminate(self.service)
            await self.service.ended.wait()

    def _check_customer(self, customer: Customer) -> None:
        there = [self.jobs[name].id for name in customer.asked.jobs if self.jobs[name].id]
        assert len(there) in (0, len(customer.asked.jobs)), "a run is submitted whole"
        if customer.run is not None:
            assert there == [job.id for job in customer.run.jobs]
        if customer.refused:
            assert any(self.jobs[name].may_be_refused for name in customer.asked.jobs)
        elif not customer.dead:
            assert sorted(there) == sorted(told.job for told in customer.told if told.whole)
        customer.check(self.root, self._entries)
