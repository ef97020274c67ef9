"""Killed at some fault points on the real Incus: nothing is lost, leaked, or done twice."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from orchestrator.settings import open_incus
from states.outcome import Verdict
from tests.calls import call
from tests.kill.scene import Scene, make_alien, make_workspace
from tests.kill.starter import Starter

IMAGE = "pikaci/dev"


@pytest.mark.incus
@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize(
    "point",
    [
        "journal:lease_opened:after",
        "incus:create:during",
        "incus:start:during",
        "incus:ready:during",
        "incus:egress:during",
        "incus:egress:output",
        "incus:run:output",
        "incus:collect:output",
        "journal:result_collected:after",
        "incus:delete:during",
    ],
)
async def test_a_run_killed_there_is_resumed(
    tmp_path: Path, starter: Starter, point: str, group: bool
) -> None:
    """Its job ends once, with its own verdict, its whole log and its artifact."""
    incus = open_incus()
    alien = f"pikaci-{secrets.token_hex(6)}"
    await make_alien(incus, alien, image=IMAGE)
    # A daemon on the same machine answers a create that its client died under within seconds.
    scene = Scene(
        starter,
        make_workspace(tmp_path, secs=1, egress="egress" in point),
        tmp_path,
        incus,
        alien,
        unanswered_secs=5,
    )
    try:
        await scene.killed("run", point=point, group=group)
        _, output = await scene.pikaci("resume")

        assert [] == await scene.faults(Verdict.FAILED), output
    finally:
        await call(incus, "delete", "--quiet", "--force", f"local:{alien}", deadline_secs=60)
