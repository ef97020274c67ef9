"""The document of a job keeps what both of its forms had before they were one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.report import JobDocument, job_document, run_report
from states.job import Job, fold
from tests.samples import PATH, sample_life

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "job_documents.json").read_text())
LIFE = sample_life(*PATH)


@pytest.mark.parametrize("where", RECORDED)
def test_every_key_stays_with_its_type(where: str) -> None:
    """Whoever reads `--output json`, or `/v1`, finds what was there."""
    now = msgspec.json.schema(JobDocument)["$defs"]["JobDocument"]

    assert RECORDED[where]["properties"] == {
        key: kind for key, kind in now["properties"].items() if key in RECORDED[where]["properties"]
    }
    assert set(RECORDED[where]["required"]) <= set(now["required"])


@pytest.mark.parametrize("job", [fold(LIFE[:n]) for n in range(1, len(LIFE) + 1)] + [Job(id="r.1")])
def test_two_names_of_one_thing_agree(job: Job) -> None:
    """And a run's report has the same document."""
    document = job_document(job)

    assert (job.name, job.name) == (document.name, document.job)
    assert (job.attempt, job.attempt) == (document.attempt, document.attempts)
    assert (document,) == run_report("r", [job]).jobs
