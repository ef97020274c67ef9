"""One attempt at a job: its effects on the host and in Incus, one method each.

An attempt changes no state and writes no journal: its caller runs the methods in order and records
what happened. Each raises a `PikaciError` unless the effect is known to be done. Each waits for a
daemon that is down, as long as the spec's deadlines allow.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import boot, start_again
from orchestrator.attempt.evidence import Evidence, NoResult
from orchestrator.attempt.plan import Plan
from orchestrator.attempt.same_ids import Neighbours
from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.errors import one_error
from orchestrator.incus import Completed, Incus, Sink, Stdin
from orchestrator.incus.errors import (
    DeadlinePassed,
    IncusError,
    InstanceFrozen,
    OutcomeUnknown,
    OutputTooLong,
    hint_for,
)
from orchestrator.incus.retries import RetryClock, limit
from states.errors import PikaciError

# A guest that is ready waits so long for the list of the others.
LISTED_SECS = 5.0
LOG_HEADER = b"[pikaci] incus guest booted at "


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

    `warnings` say what people should know of the guest.
    """

    def __init__(
        self, plan: Plan, directory: Path, incus: Incus, nonce: str, neighbours: Neighbours
    ) -> None:
        self.plan = plan
        self.evidence = Evidence(plan, directory, incus, nonce)
        self.warnings: list[str] = []
        self._incus = incus
        self._nonce = nonce
        self._neighbours = neighbours

    async def start_again(self, *, stdin: Stdin) -> None:
        """Start the instance if it stopped since it was created, or was never started.

        `stdin` is awaited before each try, and what it raises comes as it is.
        """
        await start_again(self._incus, self.plan, stdin=stdin)

    async def boot(self) -> str:
        """Return when the runner and every planned mount are there, in a guest that was started.

        Returns the name of another guest that has ids of this one's own map, "" when none has. If
        the guest boots but Incus does not list the others, that is a warning: a neighbour with the
        same ids can use up what the kernel counts per id, which is unlikely, and no reason to fail
        the job.
        """
        if not self.plan.has_own_ids:
            await boot(self._incus, self.plan)
            return ""
        other = ""
        unknown = f"Incus did not list its instances within {LISTED_SECS:g} s"

        async def look() -> None:
            nonlocal other, unknown
            try:
                other = await self._neighbours.find_same_ids(
                    self._incus,
                    self.plan.instance,
                    self.plan.config,
                    member=self.plan.member,
                    daemon_secs=self.plan.deadlines.daemon_secs,
                )
                unknown = ""
            except IncusError as fault:
                unknown = fault.brief

        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await boot(self._incus, self.plan)
                nursery.cancel_scope.deadline = trio.current_time() + LISTED_SECS
        if unknown:
            self.warnings.append(f"another guest may have ids of this one's id map: {unknown}")
        return other

    async def run(
        self,
        started: Callable[[], Awaitable[None]],
        on_log: Callable[[bytes], None],
        *,
        running: bool,
        secs: float,
    ) -> Completed | None:
        """Run the command until it ends, and copy its log to the host as it is written.

        `started` is awaited at the runner's first line. `running` says that this line was seen
        earlier: then the log is followed from the end of the host's copy, as it is after an exec
        breaks off. Returns the last exec, whatever its exit code: the code is a hint, the result
        file is the truth. Returns None when the command did not end within `secs`. Raises
        `NoResult` when the reason is known (a frozen guest), `SecretMissing` when the runner was
        not started and cannot be.
        """
        head = LOG_HEADER if running else b""
        clock = RetryClock(self.plan.deadlines.daemon_secs)
        give_up = trio.current_time() + secs

        async with self.evidence.open_log(resume=running) as log:

            async def sink(chunk: bytes) -> None:
                nonlocal head
                clock.reset()
                kept = await log.write(chunk)
                if len(head) < len(LOG_HEADER):
                    head += chunk[: len(LOG_HEADER) - len(head)]
                    if head == LOG_HEADER:
                        await started()
                if kept:
                    on_log(kept)

            @asynccontextmanager
            async def receive() -> AsyncIterator[Sink]:
                try:
                    yield sink
                finally:
                    await log.pause()

            async def stdin() -> bytes:
                # Secrets are read here and stored nowhere; after a restart they are read again.
                values = {}
                if self.plan.secrets:
                    values = await trio.to_thread.run_sync(
                        read_secrets,
                        self.plan.secrets,
                        self.plan.environment,
                        abandon_on_cancel=True,
                    )
                lease_secs = self.plan.lease_left_secs(datetime.now(UTC))
                return commands.runner_stdin(self.plan, self._nonce, values, lease_secs=lease_secs)

            async def follow(offset: int) -> Completed:
                left = max(0.0, give_up - trio.current_time())
                effect = commands.follow(self.plan, offset, secs=left)
                return await self._incus.perform(effect, into=receive)

            async def exec_once() -> Completed:
                nonlocal head
                if head == LOG_HEADER:
                    return await follow(log.offset)
                # If the job was started before, the runner attaches to it and shows its log from
                # the start.
                head = b""
                await log.restart()
                effect = commands.run(
                    self.plan, secs=max(0.0, give_up - trio.current_time()), stdin=stdin
                )
                try:
                    ended = await self._incus.perform(effect, into=receive)
                    if ended.exit_code == commands.NOT_STARTED and head != LOG_HEADER:
                        raise OutcomeUnknown("the runner's stdin was cut short")
                    return ended
                except SecretMissing:
                    # A process that died may have started the runner, with the secrets.
                    ended = await follow(0)
                    if head != LOG_HEADER:
                        raise
                    return ended

            try:
                with limit("the guest's command", secs, setting="run_margin_secs"):
                    while True:
                        try:
                            return await exec_once()
                        except commands.EXEC_AWAY_OR_UNKNOWN as error:
                            await clock.after(error)
            except DeadlinePassed as late:
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
                raise NoResult(
                    f"the runner printed more than the limit of a log: {error.brief}",
                    details=error.details,
                ) from error
        raise AssertionError("unreachable")

    async def cancel(self, *, now: bool = False) -> None:
        """Have the runner stop the job's processes; return when they are dead."""
        await self._incus.perform(commands.cancel(self.plan, now=now))
