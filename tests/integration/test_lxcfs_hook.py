"""The shorter lxcfs hook, as LXC calls it when a real container stops."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from orchestrator.host import lxcfs
from orchestrator.settings import open_incus
from tests.calls import call

pytestmark = pytest.mark.incus


async def test_only_a_guest_stops_without_lxcfs_s_own_hook() -> None:
    """Incus puts the project before the name. Here ours is one more hook, of these two alone."""
    incus = open_incus()
    with tempfile.TemporaryDirectory(prefix="pikaci-hook-") as directory:
        theirs, ours, ran = (Path(directory, name) for name in ("theirs", "ours", "ran"))
        theirs.write_text(f'#!/bin/sh\necho "$LXC_NAME" >>{ran}\n')
        ours.write_text(lxcfs._SCRIPT.replace(lxcfs.THEIR_HOOK, str(theirs)))
        for hook in (theirs, ours):
            hook.chmod(0o755)
        for name in ("pikaci-hook", "other-hook"):
            options = ("--no-profiles", "--storage", "pikaci", "--config")
            own = f"raw.lxc=lxc.hook.post-stop = {ours}"
            try:
                image = incus.name("pikaci/dev")
                await call(
                    incus, "launch", "-q", *options, own, image, incus.name(name), deadline_secs=120
                )
            finally:
                await call(incus, "delete", "-q", "--force", incus.name(name), deadline_secs=60)

        assert ["pikaci_other-hook"] == ran.read_text().split()
