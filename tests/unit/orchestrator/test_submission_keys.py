"""What is submitted twice under one key is there once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from orchestrator import (
    JobSpec,
    UsageError,
)
from orchestrator.job.submission import Request, as_sent
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.testing import open_fake
from tests.unit.orchestrator.submitted import PASSES


async def test_a_key_is_submitted_once() -> None:
    """The same job comes back, ended or not, and other jobs under the key are refused."""
    async with open_fake() as (orchestrator, _):
        first = await orchestrator.submit(PASSES, key="build 7")
        again = await orchestrator.submit(PASSES, key="build 7")
        await first.wait()
        ended = await orchestrator.submit_nowait(PASSES, key="build 7")
        other = await orchestrator.submit(PASSES, key="build 8")

        assert first.id == again.id == ended.id != other.id
        with pytest.raises(UsageError, match="another submission"):
            await orchestrator.submit(JobSpec(command="false"), key="build 7")
        assert 2 == len(orchestrator.journal.jobs())


async def test_a_key_that_two_submit_at_once_is_submitted_once() -> None:
    """Neither of them is told of an error."""
    async with open_fake() as (orchestrator, _):
        ids = []

        async def submit() -> None:
            ids.append((await orchestrator.submit(PASSES, key="k")).id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            nursery.start_soon(submit)

        assert 2 == len(ids)
        assert 1 == len(set(ids)) == len(orchestrator.journal.jobs())


async def test_one_key_is_one_run_also_for_two_that_submit_other_jobs_at_once() -> None:
    """One of them is told that the key is taken, whatever its jobs are called."""
    async with open_fake() as (orchestrator, _):
        errors: list[UsageError] = []

        async def submit(name: str) -> None:
            try:
                await orchestrator.submit(PASSES, name=name, key="nightly")
            except UsageError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, "one")
            nursery.start_soon(submit, "two")

        assert ["the key 'nightly' was used for another submission"] == [e.brief for e in errors]
        assert 1 == len(orchestrator.journal.jobs())


@pytest.mark.parametrize(
    ("snapshot", "asked"),
    [
        (None, "e788e947"),
        (Snapshot("h", Path("/s"), "c", True, subject="A commit", branch="main"), "691d482d"),
    ],
)
def test_a_request_hashes_as_it_did_before_there_were_more_fields(
    snapshot: Snapshot | None, asked: str
) -> None:
    """Who sends it again after an upgrade gets its run; these begin the hashes of older versions."""
    request = Request(Path("/"), {"a": JobSpec(command="x")}, key="k", snapshot=snapshot)

    assert asked == as_sent(request).asked[:8]
    assert asked != as_sent(replace(request, hosts=("a",))).asked[:8]
