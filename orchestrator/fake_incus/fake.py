"""`FakeIncus`: the `incus` command and a daemon behind it, in memory."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import trio

from orchestrator.errors import one_error
from orchestrator.fake_incus import instances, programs, words
from orchestrator.fake_incus.args import Command, parse
from orchestrator.fake_incus.commands import COMMANDS, Handler
from orchestrator.fake_incus.daemon import Call, Daemon
from orchestrator.fake_incus.faults import Fault, Faults, Kind
from orchestrator.fake_incus.guest import GuestScript
from orchestrator.fake_incus.model import Instance, Store, furnished
from orchestrator.fake_incus.process import Input
from orchestrator.fake_incus.shell import run_handful
from orchestrator.fake_incus.words import NotFaked, Refused
from orchestrator.incus import Completed, Feed, Sink, Stdin

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # fixed start time of a fake daemon, so that runs are
# equal


class FakeIncus:
    """An Incus to test with: a `Spawn` for `Incus(spawn=...)`, and faults on command.

    It has no threads, processes or files. It takes time only where a guest sleeps or a fault delays
    it, by trio's clock: under a `MockClock` every run is equal and instant. When a client
    disconnects, jobs continue in the fake's own nursery, as in a real guest.
    """

    def __init__(
        self, nursery: trio.Nursery, store: Store, script: GuestScript, epoch: datetime
    ) -> None:
        self.store = store
        self._faults = Faults()
        self._nursery = nursery
        self._began = epoch - timedelta(seconds=trio.current_time())
        self._calls: set[trio.CancelScope] = set()
        self._daemon = Daemon(
            store, nursery=nursery, now=self.now, script=script, faults=self._faults
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        guest_script: GuestScript = run_handful,
        store: Store | None = None,
        epoch: datetime = EPOCH,
    ) -> AsyncIterator[FakeIncus]:
        """A fake, until the block ends; guests still running then are killed.

        `guest_script` decides what a job's command does. `store` is the daemon's initial state: by
        default `furnished()`, which has the image `pikaci/dev`; `Store()` is empty. `epoch` is the
        daemon's wall clock at the start.
        """
        with one_error():
            async with trio.open_nursery() as nursery:
                yield cls(nursery, furnished() if store is None else store, guest_script, epoch)
                nursery.cancel_scope.cancel()

    def now(self) -> datetime:
        """The daemon's wall clock: its epoch plus the time on trio's clock since then."""
        return self._began + timedelta(seconds=trio.current_time())

    def instances(self, project: str = "pikaci") -> dict[str, Instance]:
        """The project's instances by name, for tests to inspect."""
        return self.store.project(project).instances

    # Faults. `target` is a verb ("create", "image list", "query PATCH"), or a program in the guest
    # ("pikaci-ready", "pikaci-incus-run", "pikaci-incus-run cancel", "pikaci-collect"). The
    # halves of a launch are "create" and "start". `name` is an instance's, or any.

    def fail(
        self,
        target: str,
        *,
        with_error: str,
        times: int = 1,
        name: str | None = None,
        carried_out: bool = False,
    ) -> None:
        """The next calls fail with `Error: with_error` and code 1, `carried_out` or not."""
        kind = Kind.FAIL_DONE if carried_out else Kind.FAIL
        self._faults.add(Fault(kind, target, times, name, with_error))

    def hang(self, target: str, *, times: int = 1, name: str | None = None) -> None:
        """The next calls do nothing and never end."""
        self._faults.add(Fault(Kind.HANG, target, times, name))

    def garble(
        self, target: str, *, prints: bytes, times: int = 1, name: str | None = None
    ) -> None:
        """The next calls are carried out, but print this instead of their output."""
        self._faults.add(Fault(Kind.GARBLE, target, times, name, prints=prints))

    def flood(self, target: str, *, times: int = 1, name: str | None = None) -> None:
        """The next calls do nothing, and print zeros until they are killed."""
        self._faults.add(Fault(Kind.FLOOD, target, times, name))

    def break_off(
        self,
        target: str,
        *,
        secs: float,
        exit_code: int = 1,
        with_error: str = words.CONNECTION_LOST,
        times: int = 1,
        name: str | None = None,
    ) -> None:
        """The connection of the next calls breaks after `secs`; what they started continues."""
        self._faults.add(
            Fault(Kind.BREAK, target, times, name, with_error, secs=secs, exit_code=exit_code)
        )

    def mute(self, target: str, *, times: int = 1, name: str | None = None) -> None:
        """The output of the next calls is lost, like that of a short exec on a busy host."""
        self._faults.add(Fault(Kind.MUTE, target, times, name))

    def late(self, target: str, *, secs: float, times: int = 1, name: str | None = None) -> None:
        """The next calls are carried out `secs` later, even if their client is killed."""
        self._faults.add(Fault(Kind.LATE, target, times, name, secs=secs))

    def never_ready(
        self,
        *,
        missing: str = "the mount /workspace/snapshot",
        times: int = 1,
        name: str | None = None,
    ) -> None:
        """The next readiness waits fail; they report `missing`."""
        self._faults.add(Fault(Kind.NEVER_READY, "ready", times, name, missing))

    def spoil_result(
        self,
        how: Literal["missing", "empty", "torn", "foreign"],
        *,
        times: int = 1,
        name: str | None = None,
    ) -> None:
        """The next jobs to end leave no result file, or one that must not be trusted."""
        self._faults.add(Fault(Kind.SPOIL, "result", times, name, how))

    def heal(self) -> None:
        """Drop the pending faults, and bring the daemon back."""
        self._faults.clear()
        self._daemon.alive = True

    def kill_daemon(self) -> None:
        """Break off every call; new ones find no daemon. Guests and their jobs continue."""
        self._daemon.alive = False
        for scope in self._calls:
            scope.cancel()

    def restart_daemon(self) -> None:
        """Make the daemon answer again."""
        self._daemon.alive = True

    def stop_guest(self, name: str, *, project: str = "pikaci") -> None:
        """Power off the guest, whatever runs in it."""
        self._daemon.stop(self.store.instance(project, name))

    def stop_agent(self, name: str, *, project: str = "pikaci") -> None:
        """Let the VM take no exec until `start_agent`; running commands continue."""
        self._daemon.guest(self.store.instance(project, name)).takes_exec = False

    def start_agent(self, name: str, *, project: str = "pikaci") -> None:
        """Start the agent again."""
        self._daemon.start_agent(self.store.instance(project, name))

    def delete_guest(self, name: str, *, project: str = "pikaci") -> None:
        """Delete the instance, as another user might."""
        self._daemon.delete(self.store.instance(project, name))

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str],
        stdin: bytes | Stdin,
        sink: Sink | None,
        feed: Feed | None = None,
    ) -> Completed:
        collected: list[bytes] = []

        async def collect(chunk: bytes) -> None:
            collected.append(chunk)

        exit_code = 1
        errors = bytearray()
        not_faked: NotFaked | None = None
        # As with a real process: a cancellation comes out in a group.
        with one_error():
            async with trio.open_nursery() as nursery:
                if feed is not None:
                    nursery.start_soon(feed, _Ignored())
                given = Input()
                if isinstance(stdin, bytes):
                    given.give(stdin)
                else:
                    nursery.start_soon(_give, given, stdin)
                try:
                    call = Call(parse(argv[1:]), given, sink or collect, errors)
                    exit_code = await self._answer(call)
                except Refused as refused:
                    errors += f"Error: {refused}\n".encode()
                except NotFaked as error:
                    not_faked = error
                finally:
                    given.give(b"")  # the client is gone
                nursery.cancel_scope.cancel()
        if not_faked is not None:
            raise not_faked
        return Completed(tuple(argv), exit_code, b"".join(collected), bytes(errors))

    async def _answer(self, call: Call) -> int:
        # A client can be killed before its request arrives, or after it was carried out.
        await trio.lowlevel.checkpoint()
        if not self._daemon.alive:
            raise Refused(words.DAEMON_DOWN)
        with trio.CancelScope() as scope:
            self._calls.add(scope)
            try:
                exit_code = await self._carry_out(call)
                await trio.lowlevel.checkpoint()
                return exit_code
            finally:
                self._calls.discard(scope)
        raise Refused(words.CONNECTION_LOST)

    async def _carry_out(self, call: Call) -> int:
        wait, rest = programs.halves(call.command.rest)
        if wait and rest:
            # Faults meet either half.
            waited = await self._carry_out(replace(call, command=replace(call.command, rest=wait)))
            if waited != 0:
                return waited
            await call.say("ready")
            return await self._carry_out(replace(call, command=replace(call.command, rest=rest)))
        handler = COMMANDS[call.command.verb]
        fault = self._fault_of(call.command, *_targets(call.command))
        if fault is None and call.command.verb == "launch":
            fault = self._fault_of(call.command, "start")
            if fault is not None:
                await instances.create(self._daemon, call)
                handler = instances.start_created
        if fault is None:
            return await handler(self._daemon, call)
        match fault.kind:
            case Kind.HANG:
                await trio.sleep_forever()
            case Kind.LATE:
                return await self._carry_out_late(fault.secs, handler, call)
            case Kind.BREAK:
                with trio.move_on_after(fault.secs):
                    await handler(self._daemon, call)
                    await trio.sleep_forever()
                call.errors += f"Error: {fault.text}\n".encode()
                return fault.exit_code
            case Kind.FLOOD:
                while True:
                    await call.write(bytes(1 << 16))
                    await trio.lowlevel.checkpoint()
            case Kind.GARBLE:
                exit_code = await handler(self._daemon, replace(call, write=_drop))
                await call.write(fault.prints)
                return exit_code
            case Kind.MUTE:
                return await handler(self._daemon, replace(call, write=_drop))
            case Kind.FAIL_DONE:
                await handler(self._daemon, call)
        raise Refused(fault.text)

    def _fault_of(self, command: Command, *targets: str) -> Fault | None:
        kinds = (
            *(Kind.FAIL, Kind.FAIL_DONE, Kind.HANG, Kind.LATE),
            *(Kind.BREAK, Kind.FLOOD, Kind.GARBLE, Kind.MUTE),
        )
        return self._faults.take(*kinds, targets=targets, name=_instance_name(command))

    async def _carry_out_late(self, secs: float, handler: Handler, call: Call) -> int:
        ended = trio.Event()
        exit_code = 1
        refused: Refused | None = None

        async def later() -> None:
            nonlocal exit_code, refused
            await trio.sleep(secs)
            try:
                exit_code = await handler(self._daemon, call)
            except Refused as refusal:
                refused = refusal
            ended.set()

        self._nursery.start_soon(later)
        await ended.wait()
        if refused is not None:
            raise refused
        return exit_code


class _Ignored(trio.abc.SendStream):
    """The stdin of a program that reads none of it."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _give(to: Input, stdin: Stdin) -> None:
    to.give(await stdin())


async def _drop(chunk: bytes) -> None:
    """Discard output."""


def _targets(command: Command) -> tuple[str, ...]:
    if command.verb == "launch":
        return ("launch", "create")
    if command.verb == "query":
        return (command.verb, f"query {command.flag('request', 'GET')}")
    if command.verb != "exec":
        return (command.verb,)
    program = programs.recognise(command.rest, Input())
    name = posixpath.basename(program.program)
    return (command.verb, name, " ".join([name, *program.args[:1]]))


def _instance_name(command: Command) -> str:
    named = command.args[1:2] if command.verb in ("create", "launch") else command.args[:1]
    return "".join(named).rpartition(":")[2].partition("/")[0]
