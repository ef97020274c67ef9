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
from orchestrator.attempt.sources import naming_source
from orchestrator.contract import contract
from orchestrator.incus import Completed, Deadline, Incus, stdin_of
from orchestrator.incus.errors import DeadlinePassed, InstanceBusy, InstanceNotFound
from orchestrator.incus.instances import list_instances

CALL_SECS = 60.0
JOB_SECS = 30
LEASE = timedelta(minutes=10)
READY_SECS = 30
OWNER = "image-check"  # of guests that belong to no state root
TRIAL = "user.pikaci.trial"  # marks a guest with the tags of a job that is not the job's own


@asynccontextmanager
async def trial_guest(incus: Incus, plan: Plan, slow: int = 1) -> AsyncIterator[None]:
    """The plan's instance, started, and deleted at the block's end; see `TrialGuest` for `slow`."""
    try:
        # Shielded: an unanswered create could still make the guest after our delete.
        with trio.CancelScope(shield=True):
            async with naming_source(plan):
                await incus.perform(commands.create(plan))
        yield
    finally:
        with trio.CancelScope(shield=True):
            await delete_trial(incus, plan.instance, slow)


async def delete_trial(incus: Incus, instance: str, slow: int = 1) -> None:
    """Delete a guest of ours, if it is there."""
    secs = CALL_SECS * slow
    # An instance still being created after a create that timed out is left to the next sweep.
    effect = commands.delete_instance(
        incus.name(instance), deadline=Deadline(secs), daemon_secs=secs
    )
    with suppress(InstanceNotFound, InstanceBusy):
        await incus.perform(effect)


async def sweep_trials(incus: Incus, owner: str) -> None:
    """Delete guests of killed processes that belong to no state root: past their deadlines."""
    now = datetime.now(UTC)
    for instance in await list_instances(incus):
        tags = instance.config
        if tags.get("user.pikaci.owner") != owner:
            continue
        if datetime.fromisoformat(tags["user.pikaci.deadline"]) < now:
            await delete_trial(incus, instance.name)


async def delete_trials_of(incus: Incus, owner: str, job: str) -> None:
    """Delete the trial guests of this job, which killed processes left."""
    wanted = {"user.pikaci.owner": owner, "user.pikaci.job": job}
    for instance in await list_instances(incus):
        if TRIAL in instance.config and wanted.items() <= instance.config.items():
            await delete_trial(incus, instance.name)


class TrialGuest:
    """The running guest of a plan: commands in it, and jobs of its runner, one after the other.

    On a `slow` host, everything may take so many times as long.
    """

    def __init__(self, incus: Incus, plan: Plan, slow: int = 1) -> None:
        self.incus = incus
        self.plan = plan
        self.slow = slow
        self._call_secs = CALL_SECS * slow

    async def exec(self, *argv: str, prints: bool = False) -> Completed:
        """Run a command in the guest; `prints` says that it always prints something."""
        effect = commands.guest_command(self.plan, argv, secs=self._call_secs, prints=prints)
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
        timeout_secs: int = 0,
        environment: dict[str, str] | None = None,
    ) -> tuple[Completed, GuestResult | str]:
        """Run a job; return the runner's exec, and the result or what is wrong with it.

        Without `timeout_secs`, the job has half a minute.
        """
        nonce = secrets.token_hex(8)
        plan = msgspec.structs.replace(
            self.plan,
            command=command,
            run_as_root=as_root,
            timeout_secs=timeout_secs or JOB_SECS * self.slow,
            environment=environment or {},
            deadlines=msgspec.structs.replace(self.plan.deadlines, grace_secs=1),
        )
        lease_secs = int(LEASE.total_seconds()) * self.slow
        effect = commands.run(
            plan,
            secs=self._call_secs,
            stdin=stdin_of(lambda: commands.runner_stdin(plan, nonce, {}, lease_secs=lease_secs)),
        )
        try:
            done = await self.incus.perform(effect)
        except DeadlinePassed as error:
            return Completed(effect.args, 1, b"", b""), error.brief
        shown = await self.exec("cat", contract().result, prints=True)
        return done, parse_result(shown.stdout, nonce)
