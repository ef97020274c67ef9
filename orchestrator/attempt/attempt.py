"""One attempt at a job: its effects on the host and in Incus, one method each.

An attempt changes no state and writes no journal: its caller runs the methods in order and records
what happened. Each raises a `PikaciError` unless the effect is known to be done. Each waits for a
daemon that is down, as long as the spec's deadlines allow.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import start_again
from orchestrator.attempt.command import Command, Watcher
from orchestrator.attempt.evidence import Evidence, NoResult
from orchestrator.attempt.plan import Plan
from orchestrator.attempt.same_ids import Look, Neighbours
from orchestrator.errors import one_error
from orchestrator.incus import Completed, Incus, Stdin
from orchestrator.incus.errors import DeadlinePassed, InstanceFrozen, OutputTooLong, hint_for
from orchestrator.incus.retries import limit
from states.errors import PikaciError


async def reset_artifacts(directory: Path, *, secs: float) -> None:
    """Delete an attempt's directory and create it again, with an empty log."""

    def reset() -> None:
        if directory.is_symlink():
            directory.unlink()
        elif directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, mode=0o700)
        (directory / "guest.log").touch()

    try:
        with limit("emptying the artifact directory", secs, setting="reset_secs"):
            await trio.to_thread.run_sync(reset, abandon_on_cancel=True)
    except OSError as error:
        raise PikaciError(
            f"the artifact directory cannot be reset: {error}",
            resolution="check the disk's free space and permissions",
        ) from error


class Attempt:
    """The effects of one plan. `directory` is the attempt's own directory on the host.

    `warnings` say what people should know of the guest. `has_looked`: it was found before that no
    other guest has ids of its own id map.
    """

    def __init__(
        self, plan: Plan, directory: Path, incus: Incus, nonce: str, neighbours: Neighbours
    ) -> None:
        self.plan = plan
        self.evidence = Evidence(plan, directory, incus, nonce)
        self.warnings: list[str] = []
        self.has_looked = False
        self._incus = incus
        self._nonce = nonce
        self._neighbours = neighbours

    async def start_again(self, *, stdin: Stdin) -> None:
        """Start the instance if it stopped since it was created, or was never started.

        `stdin` is awaited before each try, and what it raises comes as it is.
        """
        await start_again(self._incus, self.plan, stdin=stdin)

    async def run(
        self, watcher: Watcher, *, is_ready: bool, running: bool, secs: float
    ) -> Completed | None:
        """Run the command until it ends, and copy its log to the host as it is written.

        `is_ready` says that the guest was ready earlier, `running` that the runner's first line was
        seen: then the log is followed from the end of the host's copy. Returns the last exec,
        whatever its exit code: the code is a hint, the result file is the truth. Returns None when
        the command did not end within `secs` of a ready guest. Raises `NotReady`; `SameIds` when
        the guest is ready and shares ids with another one; `NoResult` when the reason is known (a
        frozen guest); `SecretMissing` when the runner was not started and cannot be.
        """
        if is_ready or self.has_looked or not self.plan.has_own_ids:
            return await self._run(watcher, is_ready=is_ready, running=running, secs=secs)
        with one_error():
            async with trio.open_nursery() as nursery:
                look = Look(self.plan, self._incus, self._neighbours)
                nursery.start_soon(look.run)

                async def ready() -> None:
                    if warning := await look.result():
                        self.warnings.append(warning)
                    await watcher.ready()

                looking = replace(watcher, ready=ready)
                ended = await self._run(looking, is_ready=False, running=False, secs=secs)
                nursery.cancel_scope.cancel()
        return ended

    async def _run(
        self, watcher: Watcher, *, is_ready: bool, running: bool, secs: float
    ) -> Completed | None:
        async with self.evidence.open_log(resume=running) as log:
            command = Command(
                self.plan,
                self._incus,
                log,
                watcher,
                nonce=self._nonce,
                is_ready=is_ready,
                running=running,
                secs=secs,
            )
            try:
                return await command.run()
            except DeadlinePassed as late:
                if not command.is_ready:
                    raise
                status = await self.evidence.status()
                if status == "Running":
                    return None  # the command may have ended although the exec did not
                seen, frozen = self.evidence.in_words(status), status == "Frozen"
                thaw = hint_for(InstanceFrozen, self.plan.host.on) if frozen else ""
                raise NoResult(
                    f"the guest's command did not end within {secs:g} s: {seen}",
                    resolution="; ".join(filter(None, (thaw, late.resolution))),
                ) from late
            except OutputTooLong as error:
                if not command.is_ready:
                    raise
                raise NoResult(
                    f"the runner printed more than the log's limit: {error.brief}",
                    details=error.details,
                ) from error

    async def cancel(self, *, now: bool = False) -> None:
        """Have the runner stop the job's processes; return when they are dead."""
        await self._incus.perform(commands.cancel(self.plan, now=now))
