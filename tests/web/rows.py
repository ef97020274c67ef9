"""Summaries of jobs that exist only as events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from orchestrator.journal import JobRow
from orchestrator.service.web.summaries import Summary, summary
from states import events as ev
from states.job import fold
from states.lifecycle import State


def summary_of(events: Iterable[Any], **changes: Any) -> Summary:
    """The summary of a job with these events; `changes` are of its row."""
    job = fold(events)
    begun = [phase for phase in job.phases if phase.state is State.ARTIFACTS_RESET]
    tree = job.snapshot or ev.SnapshotRef(hash="")
    row = JobRow(
        id=job.id,
        run=job.run,
        name=job.name,
        ended=job.ended,
        state=job.state,
        verdict=job.verdict,
        attempt=job.attempt,
        submitted_at=job.phases[0].entered_at.isoformat(),
        begun_at=begun[0].entered_at.isoformat() if begun else None,
        moved_at=job.phases[-1].entered_at.isoformat(),
        workspace=job.workspace,
        snapshot=tree.hash,
        commit=tree.commit,
        dirty=bool(tree.dirty),
        message=job.failure.message if job.failure else "",
        host=job.host,
        identity=None,
        number=1,
        subject=tree.subject,
        branch=tree.branch,
        because=job.because,
    )
    return summary(msgspec.structs.replace(row, **changes))
