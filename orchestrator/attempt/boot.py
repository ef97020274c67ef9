"""From a created instance to a guest that is ready: its runner is there, and every planned mount.

One way for both types. A container takes an exec as soon as it is started; in a VM there is
nobody to take one until its agent runs. Incus tells nobody of an agent, but it does tell of the
guest's own announcement, the lifecycle event `instance-ready`: for a VM it is listened to. What
the guest announces is not believed: the exec that looks is the same for both.
"""

from __future__ import annotations

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import Plan
from orchestrator.errors import one_error
from orchestrator.incus import Incus, to_sink
from orchestrator.incus.errors import AgentAway, AlreadyDone, IncusError, IncusMissing
from states.errors import PikaciError
from states.spec import InstanceType

# An agent whose guest announces nothing is looked for as often as Incus itself looks for it
# (6.0.4: internal/server/instance/drivers/qmp/monitor.go, Monitor.start).
LOOK_AGAIN_SECS = 10.0
LISTEN_AGAIN_SECS = 1.0
BOOTED_AGAIN_SECS = 0.1
MAX_LINE_BYTES = 1 << 20

READY = "instance-ready"


class NotReady(PikaciError):
    """The guest did not get ready in time; the message names what is missing in it."""


async def boot(incus: Incus, plan: Plan) -> None:
    """Start the instance, and return when the guest is ready. One that runs already is fine.

    `start_secs` bounds the start, for a VM until its agent takes an exec; `ready_secs` what
    comes then; a daemon that is away is waited for. Raises `NotReady` or an `IncusError`.
    """

    announced = _Announced(plan.instance)
    if plan.instance_type is InstanceType.CONTAINER:
        await _start(incus, plan, announced)
        return
    with one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, incus, plan, announced)
            await _start(incus, plan, announced)
            nursery.cancel_scope.cancel()


async def _start(incus: Incus, plan: Plan, announced: _Announced) -> None:
    d = plan.deadlines
    give_up = trio.current_time() + d.start_secs

    try:
        await incus.perform(commands.start(plan))
    except AlreadyDone:
        pass  # by a process that died before it could say so
    booted_by = trio.current_time() + d.ready_secs
    while True:
        try:
            waited = await incus.perform(commands.ready(plan))
            if waited.exit_code != commands.NOT_BOOTED or trio.current_time() >= booted_by:
                break
            # Nothing in the guest can wait for its programs, as it is them that would.
            await trio.sleep(BOOTED_AGAIN_SECS)
        except AgentAway as error:
            left = give_up - trio.current_time()
            if left <= 0:
                raise NotReady(
                    f"the VM's agent did not answer within {d.start_secs} s",
                    details=error.details,
                    resolution=f"`incus console {plan.instance}` shows a VM that boots;"
                    " deadlines.start_secs sets the limit",
                ) from None
            await announced.wait(min(left, LOOK_AGAIN_SECS))
    if waited.exit_code != 0:
        missing = waited.stdout.decode("utf-8", "replace").strip() or "a shell with mountpoint"
        raise NotReady(
            f"the guest was not ready within {d.ready_secs} s: {missing} is missing in it",
            resolution=f"`pikaci image check {plan.image}` says what the image lacks;"
            " deadlines.ready_secs sets the limit",
        )


class _Action(msgspec.Struct):
    action: str = ""
    name: str = ""


class _Event(msgspec.Struct):
    metadata: _Action


class _Announced:
    """Whether there is a reason to look at the guest: set until somebody has waited for it."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._reason = trio.Event()
        self._line = b""

    def look(self) -> None:
        self._reason.set()

    async def wait(self, secs: float) -> None:
        """Return when there is a reason, or after `secs`."""
        with trio.move_on_after(secs):
            await self._reason.wait()
        self._reason = trio.Event()

    async def hear(self, chunk: bytes) -> None:
        """What `incus monitor` prints: an object a line, with empty lines between."""
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
            await incus.perform(commands.monitor(plan), into=to_sink(announced.hear))
        except IncusMissing:
            return  # the other calls say so
        except IncusError:
            pass
        # It ends with its daemon. What was announced meanwhile is heard by nobody.
        announced.look()
        await trio.sleep(LISTEN_AGAIN_SECS)
