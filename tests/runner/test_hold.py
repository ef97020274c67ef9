"""A guest that is held for a shell, by the job that runs in it."""

from __future__ import annotations

import pytest

from orchestrator.attempt.shell import SHELL_ENDS
from orchestrator.job import hold
from orchestrator.job.hold import HELD, held
from states.spec import JobSpec

from .guest import Guest

NOBODY = b"[pikaci] nobody entered the guest\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is to come comes within a second."""
    monkeypatch.setattr(hold, "COMES_SECS", 1)


def test_nobody_enters_before_the_command(guest: Guest) -> None:
    """The command is not run, and the job ends as one that passed."""
    ended = guest.run(held(JobSpec(command="echo one"), after=False).command)

    assert (0, HELD + NOBODY) == (ended.code, ended.output)


def test_nobody_enters_after_the_command(guest: Guest) -> None:
    """It is run as any command of a job: until something in it fails."""
    spec = JobSpec(command="echo one; false | cat; echo two")
    ended = guest.run(held(spec, after=True).command)

    told = b"one\n[pikaci] the command exited with 1\n" + HELD + NOBODY
    assert (0, told) == (ended.code, ended.output)


def test_a_guest_is_held_while_a_shell_is_in_it(guest: Guest) -> None:
    """For longer than it takes to enter, and no longer than the shell is there."""
    shell = f"bash -c 'sleep 3; echo left' x{SHELL_ENDS} &"
    ended = guest.run(held(JobSpec(command=shell), after=True).command)

    assert 0 == ended.code
    assert NOBODY not in ended.output
    assert ended.output.endswith(HELD + b"left\n")
