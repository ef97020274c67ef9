"""`pikaci run --key`: two steps with one key are one run."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until

pytestmark = pytest.mark.incus

JOBS = """
schema = 1
[defaults]
memory = "512MiB"
[jobs.short]
command = "echo begun; GATE; echo ended; exit 7"
[jobs.other]
command = "true"
""".replace("GATE", AT_THE_GATE)
STEP = ("run", "--exit-code", "command", "--key", "commit-1")


@pytest.fixture(params=["alone", "service"])
def pikaci_of_steps(pikaci: Command, request: pytest.FixtureRequest) -> Iterator[Command]:
    """Where steps run their jobs themselves, and where a service does."""
    pikaci.write(JOBS)
    if request.param == "alone":
        yield pikaci
        return
    service = pikaci.run_until("serving", "serve")
    yield pikaci
    service.send_signal(signal.SIGTERM)
    service.communicate(timeout=SECS)


def runs(pikaci: Command) -> int:
    return len(json.loads(pikaci("list", "--output", "json").stdout))


def begun(out: str) -> list[str]:
    """The lines that say which run is shown."""
    return [line for line in out.splitlines() if line.startswith("run ")][:1]


def test_a_second_step_gets_the_run_of_the_first(pikaci_of_steps: Command) -> None:
    """While it goes on and when it has ended; for other jobs the key is taken."""
    pikaci = pikaci_of_steps
    steps = [pikaci.start(*STEP, "short") for _ in range(2)]
    wait_until(lambda: b"begun" in pikaci.log_lines())
    pikaci.open_gate()
    told = [step.communicate(timeout=SECS)[0] for step in steps]
    late = pikaci(*STEP, "short")

    assert [7, 7, 7] == [*(step.returncode for step in steps), late.returncode]
    assert all("ended" in out for out in (*told, late.stdout))
    assert 1 == runs(pikaci)
    assert 1 == len({line for out in (*told, late.stdout) for line in begun(out)})
    assert 242 == pikaci(*STEP, "other").returncode
    wait_until(lambda: [] == pikaci.leases())  # a service deletes it after the verdict


def test_a_step_takes_over_from_one_that_was_killed(pikaci: Command) -> None:
    """It ends with the job's own code, and nothing is left."""
    pikaci.write(JOBS)
    first = pikaci.start(*STEP, "short")
    wait_until(lambda: b"begun" in pikaci.log_lines())
    first.kill()
    first.communicate(timeout=SECS)
    second = pikaci.start(*STEP, "short")
    pikaci.open_gate()
    out, _ = second.communicate(timeout=SECS)

    assert 7 == second.returncode
    assert "ended" in out
    assert 1 == runs(pikaci)
    assert [] == pikaci.leases()


def test_who_cancels_one_step_cancels_the_run(pikaci: Command) -> None:
    """Both say so."""
    pikaci.write(JOBS)
    steps = []
    for _ in range(2):
        steps.append(pikaci.start(*STEP, "short"))
        wait_until(lambda: b"begun" in pikaci.log_lines())
    told = steps[1].stdout
    assert told is not None
    while "begun" not in told.readline():
        pass
    steps[1].send_signal(signal.SIGTERM)
    for step in steps:
        step.communicate(timeout=SECS)

    assert [243, 243] == [step.returncode for step in steps]
    assert [] == pikaci.leases()


def test_a_key_that_cannot_be_one(pikaci: Command) -> None:
    pikaci.write(JOBS)

    for words in (
        ("--key", ""),
        ("--key", "x" * 201),
        ("--key", "a\tb"),
        ("--key", "a", "--repeat", "2"),
    ):
        refused = pikaci("run", *words, "other")
        assert 2 == refused.returncode
        assert "--key" in refused.stderr
