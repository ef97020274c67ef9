"""Killed at some fault points on the real Incus: nothing is lost, leaked, or done twice."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.incus import LOCAL
from orchestrator.settings import open_incus
from states.outcome import Verdict
from tests.calls import call
from tests.hosts.far_host import NAME, FarHost, far_host
from tests.kill.scene import Scene, make_alien, make_workspace
from tests.kill.starter import Starter

IMAGE = "pikaci/dev"


POINTS = (
    "journal:lease_opened:after",
    "incus:launch:during",
    "incus:run:during",
    "incus:run:stdin",
    "incus:egress:during",
    "incus:egress:output",
    "incus:run:output",
    "incus:collect:output",
    "journal:result_collected:after",
    "incus:delete:during",
    "incus:patch:after",
    "incus:put:after",
)
# On the way to another host.
FAR_POINTS = ("incus:connect:during", "incus:send:during", "incus:send:output", *POINTS)


@pytest.fixture(scope="module")
def far() -> Iterator[FarHost]:
    """This machine, over ssh."""
    with far_host() as made:
        yield made


def cases() -> Iterator[Any]:
    """Every point, with the process killed alone and with its group; usually one of them is enough."""
    for host, points, marks in ((LOCAL, POINTS, []), (NAME, FAR_POINTS, [pytest.mark.hosts])):
        for number, point in enumerate(points):
            for group in (False, True):
                more = [pytest.mark.every_point] if host == LOCAL and group == number % 2 else []
                name = f"{host}-{point}-{'group' if group else 'process'}"
                yield pytest.param(host, point, group, marks=[*marks, *more], id=name)


@pytest.mark.incus
@pytest.mark.parametrize(("host", "point", "group"), list(cases()))
async def test_a_run_killed_there_is_resumed(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    starter: Starter,
    host: str,
    point: str,
    group: bool,
) -> None:
    """Its job ends once, with its own verdict, its whole log and its artifact."""
    # At the end it waits for the delete, or leaves that to Incus.
    waits = not point.startswith(("incus:patch", "incus:put"))
    environment = {"PIKACI_WAIT_DELETED": "1" if waits else ""}
    if host != LOCAL:
        far: FarHost = request.getfixturevalue("far")
        environment |= far.environment
    incus = open_incus()
    alien = f"pikaci-{secrets.token_hex(6)}"
    await make_alien(incus, alien, image=IMAGE)
    workspace = make_workspace(tmp_path, secs=1, egress="egress" in point)
    # A tree that is there already is not sent.
    (workspace / "own").write_text(alien)
    # A daemon on the same machine answers a create that its client died under within seconds.
    scene = Scene(
        starter,
        workspace,
        tmp_path,
        incus,
        alien,
        unanswered_secs=5,
        host=host,
        environment=environment,
    )
    try:
        await scene.killed("run", point=point, group=group)
        _, output = await scene.pikaci("resume")

        before_it_began = point == "incus:connect:during"
        assert [] == await scene.faults(*([] if before_it_began else [Verdict.FAILED])), output
    finally:
        await call(incus, "delete", "--quiet", "--force", f"local:{alien}", deadline_secs=60)
