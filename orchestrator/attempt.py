"""One attempt at a job: its effects on the host and in Incus, one method each.

An attempt moves no state and writes no journal. Whoever calls the methods, in their order,
tells what happened. Each raises a `PikaciError` when the effect is not known to be done. A
daemon that is away is waited for, as long as the spec's deadlines say.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from orchestrator import commands
from orchestrator.boot import boot
from orchestrator.evidence import Evidence, NoResult, in_words
from orchestrator.incus import Completed, Incus, Sink
from orchestrator.incus_errors import (
    AgentAway,
    AlreadyDone,
    DaemonUnreachable,
    DeadlinePassed,
    IncusError,
    InstanceBusy,
    InstanceNotFound,
    OutcomeUnknown,
    failed_call,
)
from orchestrator.patience import answered, limit, patiently
from orchestrator.plan import Plan
from orchestrator.secret_values import SecretMissing, read_secrets
from states.errors import PikaciError

LOG_HEADER = b"[pikaci] incus guest booted at "
# A create that is cancelled may take this long to end, so that nothing appears behind our back.
ANSWER_SECS = 10.0
FOLLOW_AGAIN_SECS = 0.2

_AWAY = (DaemonUnreachable,)
# A VM's exec goes through its agent, which may be starting anew.
_EXEC_AWAY = (DaemonUnreachable, AgentAway)
# For what does no harm when it is done twice.
_AWAY_OR_UNKNOWN = (DaemonUnreachable, OutcomeUnknown)


async def reset_artifacts(directory: Path, *, secs: float) -> None:
    """Remove whatever is in an attempt's directory, and make it anew, with an empty log."""

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
            resolution="look at the disk's space and permissions",
        ) from error


class Attempt:
    """The effects of one plan. `directory` is the attempt's own on the host.

    `create_answered` is None before the instance was asked for, and False while it is not known
    whether it was made.
    """

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        incus: Incus,
        nonce: str,
        *,
        create_answered: bool | None = None,
    ) -> None:
        self.plan = plan
        self.evidence = Evidence(plan, directory, incus, nonce)
        self.create_answered = create_answered
        self._incus = incus
        self._nonce = nonce

    async def create(self) -> None:
        """Create the instance with all its devices, in one call."""
        self.create_answered = False
        try:
            await answered(
                lambda: self._call(
                    "create_secs",
                    *commands.create(self.plan),
                    stdin=commands.create_document(self.plan),
                ),
                secs=ANSWER_SECS,
            )
        except (DeadlinePassed, OutcomeUnknown):
            raise
        except IncusError:
            self.create_answered = True
            raise
        self.create_answered = True

    async def start(self) -> None:
        """Start the instance, and return when the runner and every planned mount are there."""
        await boot(self._incus, self.plan)

    async def run(
        self,
        started: Callable[[], Awaitable[None]],
        on_log: Callable[[bytes], None],
        *,
        running: bool,
        secs: float,
    ) -> Completed | None:
        """Run the command to its end, copying its log to the host as it comes.

        `started` is awaited when the runner's first line is there. `running` when it was there
        before: the log is then followed from where the host's copy ends, as it is when an exec
        breaks off. Returns however the last exec ended: its exit code is a hint, the result
        file is the truth. None when there was no end within `secs`; `NoResult` when it is known
        why, as of a guest that somebody froze; `SecretMissing` when the runner was not started,
        and cannot be.
        """
        head = LOG_HEADER if running else b""

        with self.evidence.log.open("ab" if running else "wb", buffering=0) as log:

            async def sink(chunk: bytes) -> None:
                nonlocal head
                log.write(chunk)
                if len(head) < len(LOG_HEADER):
                    head += chunk[: len(LOG_HEADER) - len(head)]
                    if head == LOG_HEADER:
                        await started()
                on_log(chunk)

            async def exec_once() -> Completed:
                nonlocal head
                if head == LOG_HEADER:
                    return await self._exec(
                        commands.follow(self.plan, self.evidence.log_bytes), sink
                    )
                # The runner joins a job that it has started, and shows its log from the start.
                head = b""
                log.truncate(log.seek(0))
                try:
                    # Read here, and kept nowhere; after a restart they are read again.
                    values = await trio.to_thread.run_sync(read_secrets, self.plan.secrets)
                except SecretMissing:
                    # A runner that was started by a process which died has them.
                    ended = await self._exec(commands.follow(self.plan, 0), sink)
                    if head != LOG_HEADER:
                        raise
                    return ended
                lease_secs = self.plan.lease_left_secs(datetime.now(UTC))
                stdin = commands.runner_stdin(self.plan, self._nonce, values, lease_secs=lease_secs)
                return await self._exec(commands.run(self.plan), sink, stdin=stdin)

            try:
                with limit("the guest's command", secs, setting="run_margin_secs"):
                    while True:
                        try:
                            return await patiently(
                                exec_once, secs=self.plan.deadlines.daemon_secs, again=_EXEC_AWAY
                            )
                        except OutcomeUnknown:
                            await trio.sleep(FOLLOW_AGAIN_SECS)
            except DeadlinePassed as late:
                status = await self.evidence.status()
                if status == "Running":
                    return None  # it may have ended, and the exec not
                raise NoResult(
                    f"{late.brief}: {in_words(status)}", resolution=late.resolution
                ) from late
        raise AssertionError("unreachable")

    async def _exec(self, args: list[str], sink: Sink, *, stdin: bytes = b"") -> Completed:
        """The exec, however the command in it ended; raises when it was the exec that ended."""
        ended = await self._incus.run(
            *args, stdin=stdin, sink=sink, deadline_secs=float("inf"), check=False
        )
        if ended.exit_code == 1 or ended.exit_code < 0:
            error = failed_call(ended.argv, ended.exit_code, ended.stderr)
            if isinstance(error, (*_EXEC_AWAY, OutcomeUnknown)):
                raise error
        return ended

    async def cancel(self, *, now: bool = False) -> None:
        """Have the runner end the job's processes, and return when they are dead."""
        await self._incus.run(
            *commands.cancel(self.plan, now=now),
            deadline_secs=self.plan.deadlines.grace_secs + 5,
        )

    async def release(self) -> bool:
        """Delete the instance; True when Incus is known to have none of this name.

        False after a create whose answer was never seen: it may still appear.
        """
        if self.create_answered is None:
            return True
        try:
            await patiently(
                lambda: self._incus.run(
                    *commands.delete(self.plan),
                    deadline_secs=self.plan.deadlines.delete_secs,
                    setting="delete_secs",
                ),
                secs=self.plan.deadlines.daemon_secs,
                again=(*_AWAY_OR_UNKNOWN, InstanceBusy, AlreadyDone),
            )
        except InstanceNotFound:
            return self.create_answered
        return True

    async def _call(self, setting: str, *args: str, **options: Any) -> Completed:
        """An incus command that must not be given twice, but may wait for a daemon."""
        secs = getattr(self.plan.deadlines, setting)
        return await patiently(
            lambda: self._incus.run(*args, deadline_secs=secs, setting=setting, **options),
            secs=self.plan.deadlines.daemon_secs,
            again=_AWAY,
        )
