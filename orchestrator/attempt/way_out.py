"""A job's way out: its guest's connections, carried by an exec to the proxy in this process.

The guest's end outlives this process. So the way out of a job that is taken over, or whose exec
broke off, is restored by another exec; the guest then says what became of connections meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import no_way_out
from orchestrator.attempt.plan import Plan
from orchestrator.egress.frames import Hello
from orchestrator.egress.host_proxy import HostProxies
from orchestrator.egress.ledger import Entry, Ledger
from orchestrator.egress.link import Link, Serve
from orchestrator.errors import one_error
from orchestrator.incus import Incus, to_sink
from orchestrator.incus.errors import InstanceNotFound, InstanceNotRunning, OutcomeUnknown
from orchestrator.incus.retries import RetryClock
from orchestrator.units import counted
from states.egress import Rules
from states.errors import PikaciError

# After the command's end: for the guest to say what became of connections in a gap.
SETTLE_SECS = 10.0
_GUEST_GONE = (InstanceNotFound, InstanceNotRunning)


class WayOut:
    """The way out of one attempt. `key` names its rules to people (`jobs.deps.egress`).

    `write` is called for each connection, `gap` for each time without a way out, with the guest's
    word on it, None if the guest does not know. `warn` gets what went wrong on the way.
    """

    def __init__(
        self,
        plan: Plan,
        incus: Incus,
        key: str,
        *,
        write: Callable[[Entry], None],
        gap: Callable[[Hello | None], None],
        warn: Callable[[str], None],
    ) -> None:
        self.harm = ""
        self._plan = plan
        self._incus = incus
        self._key = key
        self._gap = gap
        self._warn = warn
        self._ledger = Ledger(write)
        self._known: Hello | None = None
        self._taken_over = False
        self._up = trio.Event()
        self._failed = trio.Event()

    @asynccontextmanager
    async def open(self, is_ready: trio.Event, *, running: bool) -> AsyncIterator[None]:
        """In the block the job has its way out, from when its guest is ready: it listens then.

        `running`: the command has started in an earlier process. What prevents the way out is a
        warning, and harm to the job: its connections wait.
        """
        self._taken_over = running
        serve = self._serve()
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_up, serve, is_ready)
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()

    async def settle(self) -> None:
        """Find out whether a gap did harm; `harm` then says which, "" for none."""
        with trio.move_on_after(SETTLE_SECS):
            await self._wait_up_or_failed()
        if not self._up.is_set():
            self._lost(None)

    def _serve(self) -> Serve:
        # h11 is imported only for jobs that need it.
        from orchestrator.egress.dial import Dialer
        from orchestrator.egress.proxy import Proxy

        dialer = Dialer(
            Rules(self._plan.egress),
            HostProxies(os.environ),
            self._key,
            mirrors=self._plan.mirror_hosts,
        )
        return Proxy(dialer, self._ledger).serve

    async def _wait_up_or_failed(self) -> None:
        async with trio.open_nursery() as nursery:

            async def either(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(either, self._up)
            nursery.start_soon(either, self._failed)

    async def _keep_up(self, serve: Serve, is_ready: trio.Event) -> None:
        await is_ready.wait()
        clock = RetryClock(self._plan.deadlines.daemon_secs)
        try:
            while True:
                try:
                    await self._once(serve, clock)
                except commands.EXEC_AWAY_OR_UNKNOWN as error:
                    await clock.after(error)
        except PikaciError as failure:
            self._failed.set()
            if not isinstance(failure, _GUEST_GONE):
                told = "; ".join(filter(None, (failure.brief, failure.resolution)))
                self._warn(f"the job cannot reach the hosts of `egress`: {told}")
            await trio.sleep_forever()
        finally:
            self._ledger.close()

    async def _once(self, serve: Serve, clock: RetryClock) -> None:
        """Carry connections until the exec ends, which always raises."""
        try:
            with one_error():
                async with trio.open_nursery() as streams:
                    link = Link(streams, serve)
                    streams.start_soon(self._greet, link, clock)
                    done = await self._incus.perform(
                        commands.way_out(self._plan), into=to_sink(link.feed), feed=link.send_to
                    )
                    streams.cancel_scope.cancel()
        finally:
            if self._up.is_set():
                self._up = trio.Event()
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        if link.hello is None:
            raise no_way_out(self._plan, said or f"exit code {done.exit_code}")
        raise OutcomeUnknown(f"the exec of the egress proxy ended: {said}")

    async def _greet(self, link: Link, clock: RetryClock) -> None:
        await link.greeted.wait()
        hello = link.hello
        assert hello is not None
        clock.reset()
        if hello.fresh and (self._known is not None or self._taken_over):
            self._lost(None)  # the guest's end that knew is gone
        elif not hello.fresh and (self._known is None or hello != self._known):
            self._lost(hello)
        self._known = hello
        self._up.set()

    def _lost(self, hello: Hello | None) -> None:
        self._gap(hello)
        if hello is None:
            self.harm = "for an unknown time"
        elif hello.cut or hello.late:
            cut = f"{counted(hello.cut, 'connection')} {'was' if hello.cut == 1 else 'were'} cut"
            self.harm = f"for {hello.gap_ms / 1000:.1f} s: {cut}, {hello.late} timed out"
