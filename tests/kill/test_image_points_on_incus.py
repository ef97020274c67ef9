"""A maker of an image that is killed on the real Incus: the image is made once, and used."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from orchestrator.image.derived import delete_images, images_of
from orchestrator.journal import open_journal
from orchestrator.settings import open_incus
from states.outcome import Verdict
from tests.calls import call
from tests.integration.running import SLIM
from tests.kill.scene import Scene, make_alien
from tests.kill.starter import Starter
from tests.kill.test_image_points import JOB_FILE, faults, made
from tests.kill.test_points_on_incus import IMAGE


@pytest.mark.incus
@pytest.mark.parametrize(
    "point",
    [
        "incus:clean:during",
        "incus:stop:during",
        "incus:publish:during",
        "incus:publish:after",
        "incus:launch:during#2",
        "incus:run:output#2",
    ],
)
async def test_a_maker_killed_there_is_resumed(
    tmp_path: Path, starter: Starter, point: str
) -> None:
    """Both jobs pass; after gc there is one image, and no guest."""
    incus = open_incus()
    alien = f"pikaci-{secrets.token_hex(6)}"
    await make_alien(incus, alien, image=IMAGE)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    slim = JOB_FILE.replace('"echo made', f'"{SLIM}echo made')
    assert slim != JOB_FILE
    (workspace / "pikaci.toml").write_text(slim)
    scene = Scene(starter, workspace, tmp_path, incus, alien, unanswered_secs=5)
    scene.root.make()
    with open_journal(scene.root.journal) as journal:
        owner = journal.owner
    try:
        await scene.killed("run", point=point)
        _, output = await scene.pikaci("resume")

        assert [] == [one async for one in faults(scene, Verdict.PASSED)], output
        assert 1 == len(await made(scene, owner))
    finally:
        await delete_images(incus, await images_of(incus, owner))
        await call(incus, "delete", "--quiet", "--force", f"local:{alien}", deadline_secs=60)
