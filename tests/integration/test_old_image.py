"""A guest whose image keeps contract 1.0: with the runner of then, and nothing that came later."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.contract import contract
from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until
from tests.integration.shells import open_shell, types

pytestmark = pytest.mark.incus

RUNNER = Path(__file__).with_name("data") / "pikaci-incus-run-1.0"
JOBS = f"""
schema = 1
[jobs.old]
command = "echo made > made.txt; echo begun; {AT_THE_GATE}; exit 3"
image = "IMAGE"
scratch = true
keep = "failure"
env = {{ COLOUR = "red" }}
secrets = {{ TOKEN = {{ env = "MY_TOKEN" }} }}
"""
WORLD = 'echo "$(id -un) $COLOUR $TOKEN $PWD $(cat made.txt)"'


def incus(verb: str, *args: str) -> None:
    argv = ["incus", verb, "--project", "pikaci", *args]
    subprocess.run(argv, check=True, capture_output=True, timeout=SECS)


@pytest.fixture
def old_image() -> Iterator[str]:
    """Its alias; the image is gone after the test."""
    name = f"pikaci-test-old-{secrets.token_hex(4)}"
    incus("create", "--no-profiles", "--storage", "pikaci", "local:pikaci/dev", f"local:{name}")
    try:
        there = f"local:{name}/usr/lib/pikaci"
        incus("file", "push", "--mode", "0755", str(RUNNER), f"{there}/pikaci-incus-run")
        incus("file", "delete", f"{there}/pikaci-egress")
        options = ("--alias", name, "--compression", "none")
        incus("publish", *options, f"local:{name}", "local:")
        incus("image", "unset-property", f"local:{name}", contract().minor_property)
    finally:
        incus("delete", "--force", f"local:{name}")
    yield name
    incus("image", "delete", f"local:{name}")


def test_a_shell_in_guests_of_an_old_image(pikaci: Command, old_image: str) -> None:
    """Beside the job, in its kept guest and in a new one: in the job's world, as with today's image."""
    pikaci.write(JOBS.replace("IMAGE", old_image))
    pikaci.env["MY_TOKEN"] = "s3cret"
    job = pikaci.start("run", "old")
    wait_until(lambda: b"begun" in pikaci.log_lines())
    beside = open_shell(pikaci, "old")
    assert ["pikaci red s3cret /workspace/snapshot made"] == types(beside, WORLD)
    beside.press(b"exit 7\n")
    assert 7 == beside.wait()
    pikaci.open_gate()
    out, told = job.communicate(SECS)

    assert 1 == job.returncode
    assert "keeps guest contract 1.0" in out + told
    kept = open_shell(pikaci, "old")
    assert ["pikaci red s3cret /workspace/snapshot made"] == types(kept, WORLD)
    kept.press(b"exit 8\n")
    assert 8 == kept.wait()
    assert 0 == pikaci("release", "old").returncode
    new = open_shell(pikaci, "old", "--before")
    assert ["pikaci red s3cret /workspace/snapshot"] == [
        line.strip() for line in types(new, WORLD.replace("made.txt", "made.txt 2>&-"))
    ]
    types(new, "sleep 1")  # who was not seen is waited for
    new.press(b"exit 9\n")
    assert 9 == new.wait()
    assert [] == pikaci.leases()
