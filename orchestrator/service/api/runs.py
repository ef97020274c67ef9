"""Submits, shows and cancels runs."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.job.handle import RunHandle
from orchestrator.job.submission import Judged
from orchestrator.job.submission import Request as RunRequest
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import decode_body, decode_query, idempotency_key
from orchestrator.service.api.jobs import document, log_cancel
from orchestrator.service.api.responses import encode, json_list
from orchestrator.service.follow import frames_of, stream_response
from orchestrator.service.held import HeldRuns
from orchestrator.service.limits import count_as_stream
from orchestrator.service.problems import Problem
from orchestrator.service.types import Cancel, JobDocument, SubmitRun
from orchestrator.slow_files import look_up
from orchestrator.snapshot.snapshot import Snapshot, snapshot_of
from states import events as ev
from states.lifecycle import State

_log = logging.getLogger(__name__)


class SubmitQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`while=held`: the answer is a stream, and lasts as long as the run.

    The run is cancelled when the stream has been closed for `HELD_SECS`, and not opened again by
    the same request with the same Idempotency-Key.
    """

    hold: Literal["held"] | None = msgspec.field(default=None, name="while")


async def submit(orchestrator: Orchestrator, request: Request) -> Response:
    """Submit a run. It is durable once answered; an Idempotency-Key makes retries safe."""
    held = decode_query(request.query_params, SubmitQuery).hold is not None
    key = idempotency_key(request)
    asked = await decode_body(request, SubmitRun)
    wanted = RunRequest(
        Path(asked.workspace),
        asked.jobs,
        include=asked.include,
        exclude=asked.exclude,
        git=asked.git,
        fresh=asked.fresh,
        fail_fast=asked.fail_fast,
        hosts=asked.hosts,
        key=key,
        held=held,
        snapshot=_snapshot_of(orchestrator, asked.snapshot),
    )
    if held:
        count_as_stream(request)  # while nothing is submitted, so that it can be refused
    warnings: list[str] = []
    run, documents, known = await accept(orchestrator, wanted, warnings)
    answer = await _json_run(
        orchestrator, run, documents, warnings=warnings, status=200 if known else 201
    )
    if not held:
        return answer
    runs: HeldRuns = request.app.state.held
    return stream_response(request, _held(orchestrator, runs, run, bytes(answer.body)))


async def _held(
    orchestrator: Orchestrator, runs: HeldRuns, run: RunHandle, first: bytes
) -> AsyncIterator[bytes]:
    """The run as it was submitted, and when it has ended, as frames; it is held until then."""
    last: list[bytes] = []

    async def more() -> bytes:
        if last:
            return b""
        await run.wait()
        answer = await _json_run(orchestrator, run, await _documents(orchestrator, run))
        last.append(bytes(answer.body))
        return b"event: run\ndata: %s\n\n" % last[0]

    with runs.holding(run.id):
        yield b"event: run\ndata: %s\n\n" % first
        async for frame in frames_of(more):
            yield frame


async def accept(
    orchestrator: Orchestrator, wanted: RunRequest, warnings: list[str]
) -> tuple[RunHandle, list[JobDocument], bool]:
    """Submit a run. It with its jobs, and whether it was known already, by its key.

    `Problem` if it is refused. `warnings` gets those of its snapshot.
    """
    # Checking reads the workspace, directories of jobs, and files of secrets.
    run = await orchestrator.find_submitted(wanted)
    known = run is not None
    if run is None:
        judged = await look_up("the paths of the run", partial(_judged, orchestrator, wanted))
        run = await orchestrator.submit_judged(
            judged, wait=False, started=lambda snapshot: warnings.extend(snapshot.warnings)
        )
    documents = await _documents(orchestrator, run)
    rejected = [document for document in documents if document.state is State.REJECTED]
    if rejected:
        raise _refusal(run.id, rejected)
    about = {
        "run": run.id,
        "jobs": len(documents),
        "key": wanted.key,
        "workspace": str(wanted.workspace),
    }
    _log.info("known run" if known else "submitted run", extra={"about": about})
    return run, documents, known


def _refusal(run: str, rejected: Sequence[JobDocument]) -> Problem:
    """The answer for a run with rejected jobs: all mistakes, in the words of `pikaci run`."""
    recorded = f"the run {run} is recorded as rejected"
    lines: list[str] = []
    for job in rejected:
        assert job.failure is not None
        first, *several = job.failure.message.splitlines()
        # The refusal of a writable workspace has no key in it.
        has_key = job.spec is None or not job.spec.writable_workspace
        for line in several or [f"{first}; allowed: {job.failure.resolution}"]:
            lines.append(f"jobs.{job.name}{'.' if has_key else ': '}{line}")
    if len(lines) > 1:
        return Problem(422, f"{len(lines)} mistakes", details="\n".join(lines), resolution=recorded)
    failure = rejected[0].failure
    assert failure is not None
    return Problem(
        422,
        f"jobs.{rejected[0].name}: {failure.message}",
        resolution=f"{failure.resolution}; {recorded}",
    )


async def get_run(orchestrator: Orchestrator, request: Request) -> Response:
    """A run, and the current state of its jobs."""
    run = await orchestrator.find_run(request.path_params["run"])
    return await _json_run(orchestrator, run, await _documents(orchestrator, run))


async def cancel_run(orchestrator: Orchestrator, request: Request) -> Response:
    """Cancel all jobs of a run, and answer when they are dead."""
    run = await orchestrator.find_run(request.path_params["run"])
    asked = await decode_body(request, Cancel)
    log_cancel([job.id for job in run.jobs], asked)
    await orchestrator.cancel((job.id for job in run.jobs), reason=asked.reason, now=asked.now)
    return await _json_run(orchestrator, run, await _documents(orchestrator, run))


def _judged(orchestrator: Orchestrator, request: RunRequest) -> Judged:
    """Check the request, and that all its secrets exist, before anything is touched.

    Secrets are read again when they are used.
    """
    judged = orchestrator.judge(request)
    if not judged.refused:
        _check_secrets(judged)
    return judged


def _check_secrets(judged: Judged) -> None:
    for name, checked in judged.checked.items():
        try:
            read_secrets(checked.spec.secrets, checked.spec.env)
        except SecretMissing as error:
            raise Problem(
                422,
                f"jobs.{name}.{error.brief}, in the service",
                resolution=error.resolution.replace("pikaci is started", "the service is started"),
            ) from None


def _snapshot_of(orchestrator: Orchestrator, asked: ev.SnapshotRef | None) -> Snapshot | None:
    if asked is None:
        return None
    # It becomes part of a path.
    if not re.fullmatch("[0-9a-f]{64}", asked.hash):
        raise Problem(
            422,
            "snapshot.hash is not the hash of a snapshot",
            resolution="send the `snapshot` of an earlier run's job, unchanged",
        )
    path = orchestrator.root.snapshots / asked.hash
    return snapshot_of(asked, path)


async def _documents(orchestrator: Orchestrator, run: RunHandle) -> list[JobDocument]:
    jobs = await orchestrator.fetch_jobs([job.id for job in run.jobs])
    return [document(orchestrator, job) for job in jobs]


async def _json_run(
    orchestrator: Orchestrator,
    run: RunHandle,
    jobs: list[JobDocument],
    *,
    warnings: Sequence[str] = (),
    status: int = 200,
) -> Response:
    row = await orchestrator.reading.journal(lambda: orchestrator.journal.find(run.jobs[0].id))
    head = b'{"id":%s,"number":%d,"jobs":[' % (encode(run.id), row.number if row else 0)
    return await json_list(orchestrator, head, jobs, b'],"warnings":%s}' % encode(warnings), status)
