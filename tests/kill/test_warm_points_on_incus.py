"""Killed at some fault points of a warm guest, on the real Incus: nothing is lost or leaked."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.settings import open_incus
from states.outcome import Verdict
from tests.calls import call
from tests.kill.scene import COMMAND, Scene, make_alien
from tests.kill.starter import Starter
from tests.kill.test_points_on_incus import IMAGE

# The second job is submitted once a warm guest is there.
BEFORE = ("journal:warm:after", "incus:launch:during#2", "incus:launch:after#2")
AFTER = (
    "journal:lease_claimed:after",  # not during the call: it is answered too soon for that
    "incus:hot-plug:after",
    "journal:devices_configured:after#2",
    "incus:run:stdin#2",
)


def cases() -> Iterator[Any]:
    """Every point, with the process killed alone and with its group; one of them is enough."""
    for number, point in enumerate((*BEFORE, *AFTER)):
        for group in (False, True):
            marks = [pytest.mark.every_point] if group == number % 2 else []
            yield pytest.param(
                point, group, marks=marks, id=f"{point}-{'group' if group else 'process'}"
            )


@pytest.mark.incus
@pytest.mark.parametrize(("point", "group"), list(cases()))
async def test_a_program_killed_there_is_resumed(
    tmp_path: Path, starter: Starter, point: str, group: bool
) -> None:
    """Each job ends once, with its own verdict; no guest is left, with a job or without."""
    incus = open_incus()
    alien = f"pikaci-{secrets.token_hex(6)}"
    await make_alien(incus, alien, image=IMAGE)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "hello.txt").write_text("hello\n")
    # A daemon on the same machine answers a create that its client died under within seconds.
    scene = Scene(starter, workspace, tmp_path, incus, alien, unanswered_secs=5)
    try:
        await scene.killed(COMMAND.format(secs=1), point=point, group=group, warm=True)
        _, output = await scene.pikaci("resume")

        jobs = [Verdict.FAILED] * (2 if point in AFTER else 1)
        assert [] == await scene.faults(*jobs), output
    finally:
        await call(incus, "delete", "--quiet", "--force", f"local:{alien}", deadline_secs=60)
