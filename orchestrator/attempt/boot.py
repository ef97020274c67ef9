"""Waits until a guest has its runner and every planned mount, and starts it if need be.

Containers and VMs go the same way. A container takes an exec as soon as it has started; a VM takes
none until its agent runs. Incus does not report the agent, but it passes on the guest's own
announcement, the lifecycle event `instance-ready`; for a VM pikaci listens for it. The announcement
is not trusted: the same exec checks both types.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.guest_scripts import NOT_BOOTED
from orchestrator.attempt.plan import Plan
from orchestrator.attempt.sources import naming_source
from orchestrator.contract import how_to_rebuild
from orchestrator.errors import one_error
from orchestrator.incus import Completed, Incus, Stdin, to_sink
from orchestrator.incus.errors import (
    AgentAway,
    AlreadyDone,
    IncusError,
    IncusMissing,
)
from states.errors import PikaciError
from states.spec import InstanceType

# If the guest announces nothing, try the agent as often as Incus itself does
# (6.0.4: internal/server/instance/drivers/qmp/monitor.go, Monitor.start).
LOOK_AGAIN_SECS = 10.0
LISTEN_AGAIN_SECS = 1.0
BOOTED_AGAIN_SECS = 0.1
MAX_LINE_BYTES = 1 << 20

READY = "instance-ready"


class NotReady(PikaciError):
    """The guest was not ready in time; the message names what is missing in it."""


def no_way_out(plan: Plan, said: str) -> NotReady:
    """Why the guest's end of a way out does not start, by what it printed."""
    last = said.strip().rpartition("\n")[2]  # of a traceback, this is what happened
    return NotReady(
        f"the guest's part of the proxy does not start: {last or 'it prints nothing'}",
        resolution=f"if the image is older than this pikaci: {how_to_rebuild(plan.image)}",
    )


async def boot(incus: Incus, plan: Plan) -> None:
    """Return when the guest, which was started, is ready.

    `start_secs` limits the time until a VM's agent takes an exec; `ready_secs` limits the rest.
    Waits for a daemon that is down. Raises `NotReady` or an `IncusError`.
    """
    waited = await boot_for(incus, plan, lambda: incus.perform(commands.ready(plan)), trio.Event())
    if waited.exit_code != 0:
        raise not_ready(plan, waited.stdout)


async def boot_for(
    incus: Incus, plan: Plan, call: Callable[[], Awaitable[Completed]], is_ready: trio.Event
) -> Completed:
    """Return what an exec that waits for readiness returns, once the guest takes and ends one.

    As long as the guest does not, `call` is awaited again. When `is_ready` is set, the guest is
    ready: then whatever `call` returns or raises is the result. Raises `NotReady` if the agent of a
    VM does not answer in time, and what `call` raises.
    """
    announced = _Announced(plan.instance)
    if plan.instance_type is InstanceType.CONTAINER:
        return await _repeat(plan, call, is_ready, announced)
    with one_error():
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async with trio.open_nursery() as listening:
                    listening.start_soon(_listen, incus, plan, announced)
                    await is_ready.wait()
                    listening.cancel_scope.cancel()

            nursery.start_soon(listen)
            waited = await _repeat(plan, call, is_ready, announced)
            nursery.cancel_scope.cancel()
    return waited


def not_ready(plan: Plan, printed: bytes) -> NotReady:
    """Why the guest is not ready, by what the wait in it printed."""
    missing, _, said = printed.decode("utf-8", "replace").strip().partition("\n")
    if said:
        return no_way_out(plan, said)
    missing = missing or "a shell with mountpoint"
    return NotReady(
        f"the guest was not ready within {plan.deadlines.ready_secs} s: {missing} is missing in it",
        resolution=f"`pikaci image check {plan.image}` says what is missing in the image;"
        " deadlines.ready_secs sets the limit",
    )


async def start_again(incus: Incus, plan: Plan, *, stdin: Stdin | None = None) -> None:
    """Start the instance, if it is not running.

    Waits for a daemon that is down. Raises an `IncusError`, or what `stdin` raises, which is
    awaited before each try.
    """
    try:
        async with naming_source(plan):
            await incus.perform(commands.start(plan, stdin=stdin))
    except AlreadyDone:
        pass


async def _repeat(
    plan: Plan,
    call: Callable[[], Awaitable[Completed]],
    is_ready: trio.Event,
    announced: _Announced,
) -> Completed:
    d = plan.deadlines
    give_up = trio.current_time() + d.start_secs
    booted_by = trio.current_time() + d.ready_secs
    while True:
        try:
            waited = await call()
            booted = waited.exit_code != NOT_BOOTED or trio.current_time() >= booted_by
            if booted or is_ready.is_set():
                return waited
            # Poll from here: the guest does not have its programs yet, so nothing in it can wait.
            await trio.sleep(BOOTED_AGAIN_SECS)
        except AgentAway as error:
            if is_ready.is_set():
                raise
            left = give_up - trio.current_time()
            if left <= 0:
                raise NotReady(
                    f"the VM's agent did not answer within {d.start_secs} s",
                    details=error.details,
                    resolution=f"`incus console {plan.instance}` shows a VM while it boots;"
                    " deadlines.start_secs sets the limit",
                ) from None
            await announced.wait(min(left, LOOK_AGAIN_SECS))


class _Action(msgspec.Struct):
    action: str = ""
    name: str = ""


class _Event(msgspec.Struct):
    metadata: _Action


class _Announced:
    """A signal that the guest is worth a look; `wait` clears it."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._reason = trio.Event()
        self._line = b""

    def look(self) -> None:
        self._reason.set()

    async def wait(self, secs: float) -> None:
        """Return at the signal, or after `secs`."""
        with trio.move_on_after(secs):
            await self._reason.wait()
        self._reason = trio.Event()

    async def feed(self, chunk: bytes) -> None:
        """Read output of `incus monitor`: one JSON object per line, with empty lines between."""
        *lines, self._line = (self._line + chunk).split(b"\n")
        self._line = self._line[:MAX_LINE_BYTES]
        for line in lines:
            try:
                event = msgspec.json.decode(line, type=_Event).metadata
            except msgspec.DecodeError:
                continue
            if (event.action, event.name) == (READY, self._instance):
                self.look()


async def _listen(incus: Incus, plan: Plan, announced: _Announced) -> None:
    while True:
        try:
            await incus.perform(commands.monitor(plan), into=to_sink(announced.feed))
        except IncusMissing:
            return  # the other calls report it
        except IncusError:
            pass
        # The monitor ends when its daemon does; an announcement may have been missed.
        announced.look()
        await trio.sleep(LISTEN_AGAIN_SECS)
