"""A job whose guest is held for a shell is a job like any other."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.hold import HELD_SECS, held, held_name
from states.rules import check
from states.spec import MAX_NAME, MAX_TIMEOUT_SECS, NAME_PATTERN, JobSpec
from tests.samples import valid_specs


@given(valid_specs())
def test_any_job_can_be_held(spec: JobSpec) -> None:
    """With its world, and for so long; it leaves nothing to others, and is not tried twice."""
    for after in (False, True):
        one = held(spec, after=after)
        check(one)

        assert (spec.env, spec.mounts, spec.image, spec.scratch) == (
            *(one.env, one.mounts, one.image),
            one.scratch,
        )
        secs = HELD_SECS + (spec.timeout_secs if after else 0)
        assert min(secs, MAX_TIMEOUT_SECS) == one.timeout_secs
        assert (None, 0, "never") == (one.output, one.retries, one.keep)


@given(st.from_regex(NAME_PATTERN, fullmatch=True), st.integers(0, 12))
def test_its_name_is_no_other_jobs(name: str, others: int) -> None:
    """And is a job's name, however long that of the job is."""
    taken = [name]
    for _ in range(others):
        taken.append(held_name(name, taken))

    assert len(taken) == len(set(taken))
    assert all(re.fullmatch(NAME_PATTERN, one) and len(one) <= MAX_NAME for one in taken)
    assert f"{name}-shell" == held_name(name, []) or len(name) > MAX_NAME - 6
