"""Brings an attempt's evidence to the host: its result, its log and its artifacts.

From a running guest with one exec that streams an archive; from a stopped guest file by file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.archive import (
    MANIFEST,
    Collector,
    Manifest,
    collect_command,
    unmatched,
    write_manifest,
)
from orchestrator.attempt.diagnosis import look_at_failure
from orchestrator.attempt.junit import Reports, read_reports
from orchestrator.attempt.log_file import HEADROOM_BYTES, LogFile
from orchestrator.attempt.plan import Plan
from orchestrator.attempt.reason import incomplete_log, reason_of, without_secrets
from orchestrator.attempt.result import GuestResult, GuestStatus, parse_result
from orchestrator.attempt.time_file import TimeFile
from orchestrator.contract import contract
from orchestrator.incus import Completed, Deadline, Incus, Retry, Sink, to_sink
from orchestrator.incus.errors import (
    AnswerUnreadable,
    DeadlinePassed,
    IncusError,
    InstanceNotFound,
    OutputTooLong,
    failed_call,
)
from orchestrator.incus.instances import instance_status
from orchestrator.log_times import times_path
from orchestrator.usage_samples import parse, samples_path, text
from states.errors import PikaciError
from states.testcases import Case, CaseReport, case_report, headline
from states.usage import Usage

STOPPING_SECS = 10.0


class NoResult(PikaciError):
    """How the command ended is not known: there is no trustworthy result file."""


class Evidence:
    """The evidence of one attempt, in `directory` on the host.

    `warnings` say what could not be collected. After `collect`, even if it was cut off, `usage` is
    what the job used, None if that did not arrive. After `read_tests`, `cases` are those of its
    test reports, and `tests` is a summary of them, None if there is no report."""

    def __init__(self, plan: Plan, directory: Path, incus: Incus, nonce: str) -> None:
        self.plan = plan
        self.directory = directory
        self.log = directory / "guest.log"
        self.warnings: list[str] = []
        self.cases: Sequence[Case] = ()
        self.tests: CaseReport | None = None
        self.usage: Usage | None = None
        self._collected: tuple[str, ...] = ()
        self._incus = incus
        self._nonce = nonce

    def open_log(self, *, resume: bool) -> LogFile:
        """The host's copy of the log, within the job's limit, for writing."""
        times = TimeFile(times_path(self.log))
        return LogFile(self.log, max_bytes=self.plan.log_bytes, resume=resume, times=times)

    async def collect(self, ended: Completed | None) -> GuestResult:
        """Fetch the result, the artifacts, and the part of the log that the host lacks.

        `ended` is the runner's exec, None if it was cut off. Raises `NoResult` when this attempt
        has no trustworthy result; even then the log, as far as it exists, is on the host.
        """
        try:
            collector, log_bytes = await self._collect(want_log=ended is None)
            result = parse_result(collector.result, self._nonce)
            if isinstance(result, GuestResult):
                log_bytes = await self._complete_log(result, log_bytes)
        except IncusError as error:
            return await self._salvage(ended, error)
        if not isinstance(result, GuestResult):
            seen = await look_at_failure(self._incus, self.plan, None)
            raise NoResult(
                "; ".join(part for part in (result, _ending(ended), seen) if part),
                resolution=f"`pikaci image check {self.plan.image}` tries the image's runner",
            )
        samples = (collector.usage or b"") if result.usage is not None else b""
        await trio.to_thread.run_sync(self._store, collector.result or b"", samples)
        if log_bytes > self.plan.log_bytes:
            self.warnings.append(f"the log was cut off at log_bytes = {self.plan.log_bytes}")
        elif log_bytes < result.log_bytes:
            self.warnings.append(
                f"the log is incomplete: {log_bytes} of its {result.log_bytes} bytes arrived"
            )
        if ended is not None and ended.exit_code != result.exit_code:
            self.warnings.append(
                f"{_ending(ended)}, the result file says {result.exit_code}: the file counts"
            )
        if result.status is GuestStatus.FAILED:
            seen = await look_at_failure(self._incus, self.plan, result)
            result = msgspec.structs.replace(result, hint=seen or result.hint)
        return result

    async def read_tests(self) -> None:
        """Read the test reports among the collected artifacts; what is wrong is a warning.

        A cancellation does not wait for the thread: a report may be made to be slow.
        """
        if not self._collected:
            return
        artifacts, collected = self.directory / "artifacts", self._collected

        def read() -> tuple[Reports, Sequence[Case]]:
            reports = read_reports(artifacts, collected, self.plan.junit)
            return reports, without_secrets(self.plan, reports.cases)

        reports, cases = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        self.warnings += reports.warnings
        if reports.found:
            self.cases, self.tests = cases, case_report(cases)

    async def find_reason(self, result: GuestResult) -> str:
        """Why the command failed, if its log says so and no test report does; else "".

        Call it after `read_tests`. A log that is not whole becomes a warning. A cancellation does
        not wait for the thread.
        """
        reason, failed_tests = "", headline(self.tests)
        if result.status is GuestStatus.FAILED and not failed_tests:
            read = partial(reason_of, self.plan, result, self.log)
            reason = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        if not result.log_complete:
            self.warnings.append(incomplete_log(result, reason or failed_tests))
        return reason

    async def _complete_log(self, result: GuestResult, log_bytes: int) -> int:
        """Fetch the part of the log that the host lacks; return its size then.

        Of an exec for a command that had ended, a busy Incus may lose all that it prints, time
        after time. A pull is no exec; but its time is short for a long log.
        """
        whole = min(result.log_bytes, most_kept(self.plan))
        if log_bytes < whole:
            log_bytes = await self._pull_log(contract().log)
        if log_bytes < whole:
            _, log_bytes = await self._collect(want_log=True)
        return log_bytes

    async def _collect(self, *, want_log: bool) -> tuple[Collector, int]:
        """Collect; return the collector, and the size of the host's log after it."""
        new_log = self.directory / "guest.log.new"
        artifacts = self.directory / "artifacts"
        max_log_bytes = most_kept(self.plan)
        collector: Collector
        log_bytes = 0

        def prepare() -> Collector:
            new_log.unlink(missing_ok=True)
            (self.directory / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(artifacts, ignore_errors=True)
            return Collector(
                artifacts,
                self.plan.artifacts,
                log_path=new_log if want_log else None,
                max_log_bytes=max_log_bytes,
            )

        def finish() -> int:
            manifest = collector.finish()
            write_manifest(self.directory, manifest)
            self._collected = tuple(file.path for file in manifest.files)
            result = parse_result(collector.result, self._nonce)
            if isinstance(result, GuestResult):
                self.usage = result.usage
            self._warn(manifest)
            return self._keep_longer_log(new_log)

        @asynccontextmanager
        async def receive() -> AsyncIterator[Sink]:
            nonlocal collector, log_bytes
            # This may be the second call, after an incomplete first one.
            self.warnings.clear()
            collector = await trio.to_thread.run_sync(prepare)

            async def sink(chunk: bytes) -> None:
                await trio.to_thread.run_sync(collector.feed, chunk)

            try:
                yield sink
            finally:
                # However it ended: record what was taken.
                with trio.CancelScope(shield=True):
                    log_bytes = await trio.to_thread.run_sync(finish)

        command = collect_command(
            self.plan.artifacts, want_log=want_log, max_log_bytes=max_log_bytes
        )
        cut_off = ""
        try:
            ended = await self._incus.perform(
                commands.collect(self.plan, command, log_bytes=max_log_bytes if want_log else 0),
                into=receive,
            )
            if ended.exit_code != 0 and collector.result is None:
                on = self.plan.host.on
                raise failed_call(ended.argv, ended.exit_code, ended.stderr, on=on)
        except (DeadlinePassed, OutputTooLong) as error:
            # The result is already here: endless output after it must not cost the verdict.
            if collector.result is None:
                raise
            cut_off = error.brief
        if cut_off:
            self.warnings.append(f"not everything was collected: {cut_off}")
        return collector, log_bytes

    def _warn(self, manifest: Manifest) -> None:
        for refused in manifest.refused:
            self.warnings.append(f"not collected: {refused.path} {refused.reason}")
        if manifest.problem:
            self.warnings.append(f"not all artifacts were collected: {manifest.problem}")
        for glob in unmatched(self.plan.artifacts, manifest):
            self.warnings.append(f"no file in /artifacts matches {glob!r}")

    def _store(self, result: bytes, samples: bytes = b"") -> None:
        """Sync result and log to the disk, before the journal says that they are there."""
        (self.directory / "result.json").write_bytes(result)
        if found := parse(samples):
            samples_path(self.log).write_bytes(text(found))
        for name in ("result.json", "guest.log"):
            with (self.directory / name).open("rb") as file:
                os.fsync(file.fileno())

    def _keep_longer_log(self, new_log: Path) -> int:
        """Keep the longer copy of the log; return its size."""
        # Both files start with the same bytes. Readers follow by path and offset, and the
        # times of these bytes stay valid.
        if new_log.exists():
            if new_log.stat().st_size > self.log.stat().st_size:
                new_log.replace(self.log)
            else:
                new_log.unlink()
        return self.log.stat().st_size

    async def _salvage(self, ended: Completed | None, error: IncusError) -> GuestResult:
        """Save and report what is possible when the guest takes no exec any more."""
        status = await self.status()
        with trio.move_on_after(STOPPING_SECS):
            # A guest that is shutting down still counts as Running, but takes no exec.
            while status == "Running":
                await trio.sleep(STOPPING_SECS / 20)
                status = await self.status()
        seen = error.brief if status in ("", "Running") else self.in_words(status)
        if status == "Stopped":
            data = await self._pull_result()
            result = parse_result(data, self._nonce)
            if data is not None and isinstance(result, GuestResult):
                # The command ended before the guest stopped.
                await self._pull_log(contract().log)
                await trio.to_thread.run_sync(self._store, data)
                self.warnings.append(f"no artifacts were collected: {seen}")
                return result
            await self._pull_log(f"{contract().private}/guest.log")
            # If the guest is being deleted, it was stopped first: ask again.
            seen = self.in_words(await self.status() or status)
        raise NoResult(
            f"{'' if status == 'Running' else 'the guest was lost while the job ran: '}{seen};"
            f" {_ending(ended)}",
            details=error.details,
            resolution=error.resolution,
        ) from error

    def in_words(self, status: str) -> str:
        """The `status`, as people read it."""
        on = self.plan.host.on
        return f"the instance{on} is {status.lower()}" if status else f"its state{on} is not known"

    async def status(self) -> str:
        """The instance's status as Incus names it; `gone` if it is deleted, empty if unknown."""

        retry = Retry(
            on=(*commands.EXEC_AWAY_OR_UNKNOWN, AnswerUnreadable),
            secs=self.plan.deadlines.daemon_secs,
        )
        deadline = Deadline(commands.STATUS_SECS)
        try:
            return await instance_status(
                self._incus, self.plan.instance, deadline=deadline, retry=retry
            )
        except InstanceNotFound:
            return "gone"
        except IncusError:
            return ""

    async def _pull_result(self) -> bytes | None:
        try:
            return (await self._incus.perform(commands.pull_result(self.plan))).stdout
        except IncusError:
            return None

    async def _pull_log(self, path: str) -> int:
        """Pull the log as a file, and keep it if it is longer than the host's copy.

        Returns the size of the host's log after it. It needs no exec: the guest may have stopped.
        """
        new_log = self.directory / "guest.log.new"
        async with LogFile(new_log, max_bytes=self.plan.log_bytes, resume=False) as into:

            async def sink(chunk: bytes) -> None:
                await into.write(chunk)

            try:
                effect = commands.pull_log(self.plan, path)
                await self._incus.perform(effect, into=to_sink(sink))
            except IncusError as error:
                self.warnings.append(f"the log's last bytes may be missing: {error.brief}")
        return await trio.to_thread.run_sync(self._keep_longer_log, new_log)


def most_kept(plan: Plan) -> int:
    """The most bytes of a job's log that the host keeps."""
    return plan.log_bytes + HEADROOM_BYTES


def _ending(ended: Completed | None) -> str:
    if ended is None:
        return "the runner's exec did not end within the host's time limit"
    words = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    code = f"the runner's exec ended with exit code {ended.exit_code}"
    return code + (f" ({words[-1]})" if words else "")
