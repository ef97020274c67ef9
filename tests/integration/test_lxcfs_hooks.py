"""The shorter lxcfs hook mounts what lxcfs's own one mounts, in a real guest."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.host import lxcfs
from orchestrator.settings import open_incus
from tests.calls import call

HAS_HOOKS = (lxcfs.INCLUDED / lxcfs.THEIRS).exists()


@pytest.fixture
def hook() -> Iterator[str]:
    """Our hook, where a guest's root can run it."""
    with tempfile.TemporaryDirectory(prefix="pikaci-hook-") as directory:
        place = Path(directory)
        place.chmod(0o711)
        script = place / "hook"
        script.write_text(lxcfs._SCRIPT)
        script.chmod(0o755)
        yield str(script)


@pytest.mark.skipif(not HAS_HOOKS, reason="this machine's LXC runs no hooks of lxcfs")
async def test_a_guest_sees_the_same_limits(hook: str) -> None:
    """The same files of /proc and /sys, from lxcfs; and the hook ran, or it would see the host's."""
    incus, seen = open_incus(), []
    for name, own in (("theirs", ""), ("ours", f"lxc.hook.mount =\nlxc.hook.mount = {hook}")):
        guest = incus.name(f"pikaci-hooks-{name}")
        options = ("--no-profiles", "--storage", "pikaci", "--config", "limits.memory=256MiB")
        try:
            await call(
                incus, "launch", "-q", *options, "--config", f"raw.lxc={own}",
                incus.name("pikaci/dev"), guest, deadline_secs=120,
            )  # fmt: skip
            command = ("exec", guest, "--", "cat", "/proc/self/mountinfo", "/proc/meminfo")
            text = (await call(incus, *command, deadline_secs=60)).stdout.decode()
        finally:
            await call(incus, "delete", "-q", "--force", guest, deadline_secs=60)
        mounts = re.findall(r" (/\S*) \S+ .*- fuse\.lxcfs ", text)
        total = re.search(r"MemTotal: +(\d+) kB", text)
        assert total is not None
        seen.append((sorted(mounts), total[1]))

    assert seen[0] == seen[1]
    assert "/proc/meminfo" in seen[0][0]
    assert str(256 << 10) == seen[0][1]
