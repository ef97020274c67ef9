"""`pikaci shell` in a guest of another host, through the connection to it."""

from __future__ import annotations

import pytest

from tests.hosts.far_host import NAME, FarHost
from tests.integration.command import SECS, Command, wait_until
from tests.integration.shells import open_shell, types

pytestmark = pytest.mark.incus

# It waits in its workspace's scratch, which only the shell reaches.
JOBS = """
schema = 1
[jobs.waits]
command = "echo begun; until [ -e go ]; do sleep 0.1; done; exit 3"
scratch = true
env = { COLOUR = "red" }
"""


def test_a_shell_on_another_host(far: FarHost, pikaci: Command) -> None:
    """Beside the job, and then in its kept guest, which is released there."""
    pikaci.write(JOBS)
    job = pikaci.start("run", "--host", NAME, "--keep-on-failure")
    wait_until(lambda: b"begun" in pikaci.log_lines())

    beside = open_shell(pikaci, "waits")
    assert ["pikaci red"] == types(beside, 'echo "$(id -un) $COLOUR"')
    beside.press(b"touch go; exit 6\n")
    assert 6 == beside.wait()
    job.communicate(SECS)
    assert 1 == job.returncode

    assert f"on {NAME}" in pikaci("kept").stdout
    kept = open_shell(pikaci, "waits")
    assert ["pikaci red"] == types(kept, 'echo "$(id -un) $COLOUR"')
    assert ["go", "pikaci.toml"] == types(kept, "ls -1")
    kept.press(b"exit\n")
    assert 0 == kept.wait()
    released = pikaci("release", "--all")
    assert 0 == released.returncode, released
    assert "no guest is kept\n" == pikaci("kept").stdout
