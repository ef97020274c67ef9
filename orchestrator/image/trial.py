"""A throw-away guest of an image, in which the image is tried before it is used."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import Plan
from orchestrator.attempt.result import GuestResult, parse_result
from orchestrator.contract import contract
from orchestrator.incus import Completed, Deadline, Incus, stdin_of
from orchestrator.incus.errors import DeadlinePassed, InstanceBusy, InstanceNotFound
from orchestrator.incus.instances import list_instances

CALL_SECS = 60.0
LEASE = timedelta(minutes=10)
READY_SECS = 30
OWNER = "image-check"


@asynccontextmanager
async def trial_guest(incus: Incus, plan: Plan) -> AsyncIterator[None]:
    """The instance of the plan, deleted at the end of the block."""
    try:
        # Shielded: an unanswered create could still make the guest after our delete.
        with trio.CancelScope(shield=True):
            await incus.perform(commands.create(plan))
        yield
    finally:
        with trio.CancelScope(shield=True):
            await delete_trial(incus, plan.instance)


async def delete_trial(incus: Incus, instance: str) -> None:
    """Delete a guest of ours, if it is there."""
    # An instance still being created after a create that timed out is left to the next sweep.
    effect = commands.delete_instance(
        incus.name(instance), deadline=Deadline(CALL_SECS), daemon_secs=CALL_SECS
    )
    with suppress(InstanceNotFound, InstanceBusy):
        await incus.perform(effect)


async def sweep_trials(incus: Incus, owner: str = OWNER, *, job: str = "") -> None:
    """Delete this owner's guests of killed processes: past their deadlines, or of this job."""
    now = datetime.now(UTC)
    for instance in await list_instances(incus):
        tags = instance.config
        if tags.get("user.pikaci.owner") == owner:
            ends = datetime.fromisoformat(tags["user.pikaci.deadline"])
            if ends < now or tags.get("user.pikaci.job") == job:
                await delete_trial(incus, instance.name)


class TrialGuest:
    """The running guest of a plan: commands in it, and jobs of its runner, one after the other."""

    def __init__(self, incus: Incus, plan: Plan) -> None:
        self.incus = incus
        self.plan = plan

    async def exec(self, *argv: str, prints: bool = False) -> Completed:
        """Run a command in the guest; `prints` says that it always prints something."""
        effect = commands.guest_command(self.plan, argv, secs=CALL_SECS, prints=prints)
        return await self.incus.perform(effect)

    async def reset(self) -> None:
        """Make the guest ready for another job; it is meant for one."""
        ours = contract()
        await self.exec("rm", "-rf", ours.private, ours.log, ours.result)

    async def job(
        self,
        command: str,
        *,
        as_root: bool,
        timeout_secs: int = 30,
        environment: dict[str, str] | None = None,
    ) -> tuple[Completed, GuestResult | str]:
        """Run a job; return the runner's exec, and the result or what is wrong with it."""
        nonce = secrets.token_hex(8)
        plan = msgspec.structs.replace(
            self.plan,
            command=command,
            run_as_root=as_root,
            timeout_secs=timeout_secs,
            environment=environment or {},
            deadlines=msgspec.structs.replace(self.plan.deadlines, grace_secs=1),
        )
        lease_secs = int(LEASE.total_seconds())
        effect = commands.run(
            plan,
            secs=CALL_SECS,
            stdin=stdin_of(lambda: commands.runner_stdin(plan, nonce, {}, lease_secs=lease_secs)),
        )
        try:
            done = await self.incus.perform(effect)
        except DeadlinePassed as error:
            return Completed(effect.args, 1, b"", b""), error.brief
        shown = await self.exec("cat", contract().result, prints=True)
        return done, parse_result(shown.stdout, nonce)
