"""Submits, shows and cancels runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.job.handle import RunHandle
from orchestrator.job.submission import Judged, judge
from orchestrator.job.submission import Request as RunRequest
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import decode_body, idempotency_key
from orchestrator.service.api.jobs import document, log_cancel
from orchestrator.service.api.responses import encode, json_list
from orchestrator.service.problems import Problem
from orchestrator.service.types import Cancel, JobDocument, SubmitRun
from orchestrator.slow_files import look_up
from orchestrator.snapshot.snapshot import Snapshot
from states import events as ev
from states.lifecycle import State

_log = logging.getLogger(__name__)


async def submit(orchestrator: Orchestrator, request: Request) -> Response:
    """Submit a run. It is durable once answered; an Idempotency-Key makes retries safe."""
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
        key=key,
        snapshot=_snapshot_of(orchestrator, asked.snapshot),
    )
    # Checking reads the workspace, directories of jobs, and files of secrets.
    run = await orchestrator.find_submitted(wanted)
    known = run is not None
    warnings: list[str] = []
    if run is None:
        judged = await look_up("the paths of the run", partial(_judged, wanted))
        run = await orchestrator.submit_judged(
            judged, wait=False, started=lambda snapshot: warnings.extend(snapshot.warnings)
        )
    documents = await _documents(orchestrator, run)
    rejected = [document for document in documents if document.state is State.REJECTED]
    if rejected:
        raise _refusal(run.id, rejected)
    about = {"run": run.id, "jobs": len(documents), "key": key, "workspace": asked.workspace}
    _log.info("known run" if known else "submitted run", extra={"about": about})
    return await _json_run(
        orchestrator, run, documents, warnings=warnings, status=200 if known else 201
    )


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
    """Cancel all jobs of a run; the answer comes when they are dead."""
    run = await orchestrator.find_run(request.path_params["run"])
    asked = await decode_body(request, Cancel)
    log_cancel([job.id for job in run.jobs], asked)
    await orchestrator.cancel((job.id for job in run.jobs), reason=asked.reason, now=asked.now)
    return await _json_run(orchestrator, run, await _documents(orchestrator, run))


def _judged(request: RunRequest) -> Judged:
    """Check the request, and that all its secrets exist, before anything is touched.

    Secrets are read again when they are used.
    """
    judged = judge(request)
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
    return Snapshot(asked.hash, path, asked.commit, asked.dirty)


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
    head = b'{"id":%s,"jobs":[' % encode(run.id)
    return await json_list(orchestrator, head, jobs, b'],"warnings":%s}' % encode(warnings), status)
