"""A job whose guest is held for a shell: a job like any other, which ends by itself."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given

from orchestrator.job import hold
from orchestrator.job.hold import HELD, held
from states.rules import check
from states.spec import JobSpec
from tests.samples import valid_specs


@given(valid_specs())
def test_any_job_can_be_held(spec: JobSpec) -> None:
    """With its world; it leaves nothing to others, and is not tried twice."""
    for after in (False, True):
        one = held(spec, after=after)
        check(one)

        assert (spec.env, spec.mounts, spec.image, spec.scratch) == (
            *(one.env, one.mounts, one.image),
            one.scratch,
        )
        assert (None, 0, "never") == (one.output, one.retries, one.keep)


@pytest.mark.parametrize(
    ("command", "told"),
    [("echo one; false; echo two", b"one\n[pikaci] the command exited with 1\n"), ("true", b"")],
)
def test_a_guest_that_nobody_enters(
    monkeypatch: pytest.MonkeyPatch, command: str, told: bytes
) -> None:
    """The command is run as the runner does, and the job ends as one that passed."""
    monkeypatch.setattr(hold, "COMES_SECS", 1)
    one = held(JobSpec(command=command), after=bool(told))
    runner = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", one.command]
    done = subprocess.run(runner, capture_output=True, timeout=60)

    assert (0, b"") == (done.returncode, done.stderr)
    assert told + HELD + b"[pikaci] nobody entered the guest\n" == done.stdout
