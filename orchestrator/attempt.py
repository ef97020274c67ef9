"""One attempt at a job: its effects on the host and in Incus, one method each.

An attempt moves no state and writes no journal. Whoever calls the methods, in their order,
tells what happened. Each raises a `PikaciError` when the effect is not known to be done.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from orchestrator import commands
from orchestrator.collect import Collector, Manifest, collect_command
from orchestrator.contract import contract
from orchestrator.incus import Completed, Incus
from orchestrator.incus_errors import (
    DeadlinePassed,
    IncusError,
    InstanceNotFound,
    OutcomeUnknown,
    failed_call,
)
from orchestrator.plan import Plan
from orchestrator.result import GuestResult, parse_result
from states.errors import PikaciError

LOG_HEADER = b"[pikaci] incus guest booted at "
MAX_ARTIFACT_BYTES = 1 << 30
MAX_ARTIFACT_FILES = 10_000
# What a guest that stopped may cost: its files are pulled one by one.
PULL_SECS = 60.0
STOPPING_SECS = 10.0


class NotReady(PikaciError):
    """The guest did not get ready in time; the message names what is missing in it."""


class NoResult(PikaciError):
    """The command's end is not known: there is no result file that can be believed."""


async def reset_artifacts(directory: Path) -> None:
    """Remove whatever is in an attempt's directory, and make it anew, with an empty log."""

    def reset() -> None:
        if directory.is_symlink():
            directory.unlink()
        elif directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, mode=0o700)
        (directory / "guest.log").touch()

    try:
        await trio.to_thread.run_sync(reset)
    except OSError as error:
        raise PikaciError(
            f"the artifact directory cannot be reset: {error}",
            resolution="look at the disk's space and permissions",
        ) from error


class Attempt:
    """The effects of one plan. `directory` is the attempt's own on the host."""

    def __init__(self, plan: Plan, directory: Path, incus: Incus) -> None:
        self.plan = plan
        self.directory = directory
        self.log = directory / "guest.log"
        self.warnings: list[str] = []
        # None: never asked for. False: asked for, and the answer is not known.
        self.create_answered: bool | None = None
        self._incus = incus
        self._nonce = secrets.token_hex(16)
        self._log_bytes = 0

    async def create(self) -> None:
        """Create the instance with all its devices, in one call."""
        self.create_answered = False
        try:
            await self._incus.run(
                *commands.create(self.plan),
                stdin=commands.create_document(self.plan),
                deadline_secs=self.plan.deadlines.create,
            )
        except (DeadlinePassed, OutcomeUnknown):
            raise
        except IncusError:
            self.create_answered = True
            raise
        self.create_answered = True

    async def start(self) -> None:
        """Start the instance, and return when the runner and every planned mount are there."""
        await self._incus.run(*commands.start(self.plan), deadline_secs=self.plan.deadlines.start)
        ready_secs = self.plan.deadlines.ready
        waited = await self._incus.run(
            *commands.wait_ready(self.plan), deadline_secs=ready_secs + 30, check=False
        )
        if waited.exit_code == commands.NOT_READY:
            missing = waited.stdout.decode("utf-8", "replace").strip()
            raise NotReady(
                f"the guest was not ready within {ready_secs} s: {missing} is missing in it",
                resolution=f"`pikaci image check {self.plan.image}` says what the image lacks",
            )
        if waited.exit_code != 0:
            raise failed_call(waited.argv, waited.exit_code, waited.stderr)

    async def run(
        self, started: Callable[[], Awaitable[None]], on_log: Callable[[bytes], None]
    ) -> Completed:
        """Run the command, copying its log to the host as it comes.

        `started` is awaited when the runner's first line is there. Returns however the exec
        ended: its exit code is a hint, the result file is the truth. `DeadlinePassed` when the
        guest did not end the command in its time, nor a margin after it.
        """
        head = b""

        with self.log.open("wb", buffering=0) as log:

            async def sink(chunk: bytes) -> None:
                nonlocal head
                log.write(chunk)
                self._log_bytes += len(chunk)
                if len(head) < len(LOG_HEADER):
                    head += chunk[: len(LOG_HEADER) - len(head)]
                    if head == LOG_HEADER:
                        await started()
                on_log(chunk)

            return await self._incus.run(
                *commands.run(self.plan),
                stdin=commands.runner_stdin(self.plan, self._nonce),
                sink=sink,
                deadline_secs=self.plan.run_deadline_secs,
                check=False,
            )

    async def collect(self, ended: Completed | None) -> GuestResult:
        """Fetch the result, the artifacts, and what the host lacks of the log.

        `ended` is the runner's exec, None when it was cut off. Raises `NoResult` when no result
        of this attempt can be believed; what there is of the log is on the host even then.
        """
        try:
            collector = await self._collect(want_log=ended is None)
            result = parse_result(collector.result, self._nonce)
            if isinstance(result, GuestResult) and result.log_bytes != self._log_bytes:
                collector = await self._collect(want_log=True)
        except IncusError as error:
            raise NoResult(
                await self._gone(ended, error), details=error.details, resolution=error.resolution
            ) from error
        if not isinstance(result, GuestResult):
            raise NoResult(
                f"{result}; the runner's exec ended with {_ending(ended)}",
                resolution=f"`pikaci image check {self.plan.image}` tries the image's runner",
            )
        if not result.log_complete:
            self.warnings.append("the guest could not write all of its log: was its disk full?")
        if ended is not None and ended.exit_code != result.exit_code:
            self.warnings.append(
                f"the exec ended with {_ending(ended)}, the result file says {result.exit_code}:"
                " the file counts"
            )
        return result

    async def _collect(self, *, want_log: bool) -> Collector:
        new_log = self.directory / "guest.log.new"
        artifacts = self.directory / "artifacts"
        # A second time, when the first did not bring all of the log.
        self.warnings.clear()
        await trio.to_thread.run_sync(lambda: shutil.rmtree(artifacts, ignore_errors=True))
        collector = Collector(
            artifacts,
            self.plan.artifacts,
            max_bytes=MAX_ARTIFACT_BYTES,
            max_files=MAX_ARTIFACT_FILES,
            log_path=new_log if want_log else None,
        )

        async def sink(chunk: bytes) -> None:
            await trio.to_thread.run_sync(collector.feed, chunk)

        try:
            ended = await self._incus.run(
                *commands.collect(
                    self.plan, collect_command(self.plan.artifacts, want_log=want_log)
                ),
                sink=sink,
                deadline_secs=self.plan.deadlines.collect,
                check=False,
            )
        finally:
            with trio.CancelScope(shield=True):
                manifest = await trio.to_thread.run_sync(collector.finish)
        if ended.exit_code != 0 and collector.result is None:
            raise failed_call(ended.argv, ended.exit_code, ended.stderr)
        self._report(manifest)
        self._keep_longer_log(new_log)
        return collector

    def _report(self, manifest: Manifest) -> None:
        (self.directory / "manifest.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(manifest))
        )
        for refused in manifest.refused:
            self.warnings.append(f"not collected: {refused.path} {refused.reason}")
        if manifest.problem:
            self.warnings.append(f"not all artifacts were collected: {manifest.problem}")

    def _keep_longer_log(self, new_log: Path) -> None:
        # Both hold the same bytes from the first on. Readers follow by path and offset.
        if new_log.exists():
            size = new_log.stat().st_size
            if size > self._log_bytes:
                new_log.replace(self.log)
                self._log_bytes = size
            else:
                new_log.unlink()

    async def _gone(self, ended: Completed | None, error: IncusError) -> str:
        """What can be said, and saved, when no exec is possible any more."""
        status = await self._status()
        with trio.move_on_after(STOPPING_SECS):
            # A guest that is being stopped, by itself or by somebody, is Running until it is done,
            # and takes no exec any more.
            while status == "Running":
                await trio.sleep(STOPPING_SECS / 20)
                status = await self._status()
        if status == "Stopped":
            await self._pull_log()
        seen = f"the instance is {status.lower()}" if status else error.brief
        return f"the guest was lost under the job: {seen}; its exec ended with {_ending(ended)}"

    async def _status(self) -> str:
        try:
            return await self._incus.instance_status(self.plan.instance, deadline_secs=10)
        except InstanceNotFound:
            return "gone"
        except IncusError:
            return ""

    async def _pull_log(self) -> None:
        """Read the log of a stopped guest from the runner's own, root-only directory."""
        new_log = self.directory / "guest.log.new"
        with new_log.open("wb", buffering=0) as into:

            async def sink(chunk: bytes) -> None:
                into.write(chunk)

            try:
                await self._incus.run(
                    *commands.pull(self.plan, f"{contract().private}/guest.log"),
                    sink=sink,
                    deadline_secs=PULL_SECS,
                )
            except IncusError as error:
                self.warnings.append(f"the log's last bytes may be missing: {error.brief}")
        self._keep_longer_log(new_log)

    async def cancel(self, *, now: bool = False) -> None:
        """Have the runner end the job's processes, and return when they are dead."""
        await self._incus.run(
            *commands.cancel(self.plan, now=now),
            deadline_secs=self.plan.deadlines.grace + 5,
        )

    async def release(self) -> bool:
        """Delete the instance; True when Incus is known to have none of this name.

        False after a create whose answer was never seen: it may still appear.
        """
        if self.create_answered is None:
            return True
        try:
            await self._incus.run(
                *commands.delete(self.plan), deadline_secs=self.plan.deadlines.delete
            )
        except InstanceNotFound:
            return self.create_answered
        return True


def _ending(ended: Completed | None) -> str:
    if ended is None:
        return "no answer"
    words = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"exit code {ended.exit_code}" + (f" ({words[-1]})" if words else "")
