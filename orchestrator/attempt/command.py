"""Runs a job's command in its guest, from the wait until the guest is ready to the command's end.

One exec is all of it: it waits in the guest, becomes the runner, and follows the log. An exec that
breaks off is made again: from the wait, from the runner's start (a second start attaches to the
job of the first one), or from the end of the host's copy of the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import boot_for, not_ready
from orchestrator.attempt.guest_scripts import IS_READY, NOT_BOOTED, NOT_READY
from orchestrator.attempt.log_file import LogFile
from orchestrator.attempt.plan import Plan
from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.incus import Completed, Effect, Incus, Sink
from orchestrator.incus.effect import SHORT_BYTES
from orchestrator.incus.errors import OutcomeUnknown, OutputTooLong
from orchestrator.incus.retries import RetryClock, limit

LOG_HEADER = b"[pikaci] incus guest booted at "


@dataclass(frozen=True)
class Watcher:
    """What is called as the command goes on. `ready` and `started` hold it up until they return.

    `ready`: the guest is ready, and nothing of the job runs in it; what it raises ends the exec.
    `started`: the runner's first line is there; again after an exec that was made again.
    `log`: bytes that were added to the host's copy of the log.
    """

    ready: Callable[[], Awaitable[None]]
    started: Callable[[], Awaitable[None]]
    log: Callable[[bytes], None]


class Command:
    """One command. `is_ready`: its guest was ready earlier; `running`: its first line was seen.

    `nonce` is for the result. It may run for `secs` after the guest is ready.
    """

    def __init__(
        self,
        plan: Plan,
        incus: Incus,
        log: LogFile,
        watcher: Watcher,
        *,
        nonce: str,
        is_ready: bool,
        running: bool,
        secs: float,
    ) -> None:
        self._plan = plan
        self._incus = incus
        self._log = log
        self._watcher = watcher
        self._nonce = nonce
        self._secs = secs
        self._ready = trio.Event()
        if is_ready:
            self._ready.set()
        self._head = LOG_HEADER if running else b""
        self._clock = RetryClock(plan.deadlines.daemon_secs)
        self._waited = b""  # what the wait printed, up to the line that the guest is ready
        self._limit = self._wait_limit = trio.CancelScope()

    @property
    def is_ready(self) -> bool:
        """Whether the guest was ready."""
        return self._ready.is_set()

    @property
    def _runs(self) -> bool:
        return self._head == LOG_HEADER

    async def run(self) -> Completed:
        """Return the last exec, whatever its exit code, when the command has ended.

        Raises `DeadlinePassed` when it does not end in time, `NotReady`, an `IncusError`, what
        `Watcher.ready` raises, and `SecretMissing` if the runner was not started and cannot be.
        """
        with limit("the guest's command", self._secs, setting="run_margin_secs") as scope:
            if not self.is_ready:
                scope.deadline = float("inf")  # until it is
            self._limit = scope
            while True:
                try:
                    return await self._exec()
                except commands.EXEC_AWAY_OR_UNKNOWN as error:
                    if not self.is_ready and not isinstance(error, commands.AWAY_OR_UNKNOWN):
                        raise
                    await self._clock.after(error)
        raise AssertionError("unreachable")

    async def _exec(self) -> Completed:
        if self._runs:
            return await self._follow(self._log.offset)
        # If the job was started before, the runner attaches to it and shows its log from the start.
        self._head = b""
        await self._log.restart()
        try:
            if self.is_ready:
                ended = await self._perform(
                    commands.run(self._plan, self._stdin, secs=self._secs_left)
                )
            else:
                ended = await boot_for(self._incus, self._plan, self._wait_and_run, self._ready)
                if not self.is_ready:
                    raise not_ready(self._plan, self._waited)
        except SecretMissing:
            # A process that died may have started the runner, with the secrets.
            ended = await self._follow(0)
            if not self._runs:
                raise
            return ended
        if ended.exit_code == commands.NOT_STARTED and not self._runs:
            raise OutcomeUnknown("the runner's stdin was cut short")
        return ended

    async def _wait_and_run(self) -> Completed:
        async def stdin() -> bytes:
            await self._ready.wait()
            return await self._stdin()

        self._waited = b""
        secs = commands.longest_wait(self._plan)
        with limit("the wait for a ready guest", secs, setting="ready_secs") as self._wait_limit:
            self._wait_limit.deadline = float("inf")  # until the exec starts: a link takes its time
            effect = replace(commands.run(self._plan, stdin, wait=True), takes=self._takes)
            ended = await self._perform(effect)
            if not self.is_ready and ended.exit_code == 0:
                raise OutcomeUnknown("the exec ended while it waited for a ready guest")
            return ended
        raise AssertionError("unreachable")

    def _takes(self, code: int) -> bool:
        """Whether the command may have ended the exec so, or a wait that says what is missing."""
        return self.is_ready or code in (0, NOT_READY, NOT_BOOTED)

    async def _follow(self, offset: int) -> Completed:
        return await self._perform(commands.follow(self._plan, offset, secs=self._secs_left))

    async def _perform(self, effect: Effect) -> Completed:
        return await self._incus.perform(effect, into=self._receive)

    @property
    def _secs_left(self) -> float:
        return max(0.0, self._limit.deadline - trio.current_time())

    @asynccontextmanager
    async def _receive(self) -> AsyncIterator[Sink]:
        if not self.is_ready:
            secs = commands.longest_wait(self._plan)
            self._wait_limit.deadline = trio.current_time() + secs
        try:
            yield self._sink
        finally:
            await self._log.pause()

    async def _sink(self, chunk: bytes) -> None:
        if not self.is_ready:
            chunk = await self._until_ready(chunk)
        if self.is_ready:
            self._clock.reset()  # not before: a guest that only talks would be waited for for ever
        if not chunk:
            return
        kept = await self._log.write(chunk)
        if len(self._head) < len(LOG_HEADER):
            self._head += chunk[: len(LOG_HEADER) - len(self._head)]
            if self._runs:
                await self._watcher.started()
        if kept:
            self._watcher.log(kept)

    async def _until_ready(self, chunk: bytes) -> bytes:
        """Take what the wait prints, and return what follows it."""
        self._waited += chunk
        if len(self._waited) > SHORT_BYTES:
            raise OutputTooLong(f"the wait for a ready guest printed over {SHORT_BYTES} bytes")
        if not self._waited.startswith(IS_READY):
            return b""
        self._wait_limit.deadline = float("inf")
        await self._watcher.ready()
        self._limit.deadline = trio.current_time() + self._secs
        self._ready.set()
        return self._waited[len(IS_READY) :]

    async def _stdin(self) -> bytes:
        # Secrets are read here and stored nowhere; after a restart they are read again.
        values = {}
        if self._plan.secrets:
            values = await trio.to_thread.run_sync(
                read_secrets,
                self._plan.secrets,
                self._plan.environment,
                abandon_on_cancel=True,
            )
        lease_secs = self._plan.lease_left_secs(datetime.now(UTC))
        return commands.runner_stdin(self._plan, self._nonce, values, lease_secs=lease_secs)
