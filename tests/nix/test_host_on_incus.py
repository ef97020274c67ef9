"""The host module's preseed, given to a real daemon."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.host.setup import PROFILE, setup
from orchestrator.incus import Host, Incus
from tests.integration.private_daemon import POOL, PROJECT, PrivateDaemon

from .evaluation import Nix

HOST = './nix/host.nix { services.pikaci = { enable = true; poolSize = "4GiB"; }; }'


@pytest.fixture
def bare_daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateDaemon]:
    """A daemon that has nothing."""
    with tempfile.TemporaryDirectory(prefix="pikaci-incus-") as directory:
        daemon = PrivateDaemon(Path(directory))
        daemon.start()
        monkeypatch.setenv("INCUS_DIR", str(daemon.directory))
        monkeypatch.delenv("INCUS_SOCKET", raising=False)
        try:
            yield daemon
            daemon.incus("profile", "delete", "--project", PROJECT, PROFILE)
            daemon.incus("project", "delete", PROJECT)
            daemon.incus("storage", "delete", POOL)
        finally:
            daemon.kill()


@pytest.mark.incus
@pytest.mark.skipif(os.geteuid() != 0, reason="a daemon of a test's own needs root")
async def test_set_up_finds_all_but_the_quotas(
    nix: Nix, bare_daemon: PrivateDaemon, tmp_path: Path
) -> None:
    """Incus takes the preseed, and what it then has is what `pikaci setup` makes."""
    modules = f"import ./tests/nix/stubs/modules.nix {{ modules = [ {HOST} ]; }}"
    preseed = nix.evaluate(f"({modules}).config.virtualisation.incus.preseed")
    bare_daemon.incus("admin", "init", "--preseed", stdin=json.dumps(preseed).encode())
    steps: list[str] = []

    await setup(Incus(tmp_path / "conf"), Host(), say=steps.append, kinds=())

    assert [f"turned on simple quotas in the storage pool {POOL}"] == steps
    show = ("profile", "show", "--project", PROJECT, PROFILE)
    assert preseed["profiles"][0]["description"] in bare_daemon.incus(*show)
