"""Warm guests on another host: the files from here are plugged into them there."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest

from tests.hosts.far_host import far_host
from tests.integration.command import Command, wait_until

pytestmark = pytest.mark.incus


def finds_a_warm_guest(pikaci: Command) -> None:
    """A service whose second job is in a guest that was there before it."""
    (pikaci.workspace / "private").write_text("mine\n")
    service = pikaci.run_until("serving", "serve", "--warm", "1")

    def can_be_claimed() -> bool:
        way = httpx.HTTPTransport(uds=str(pikaci.root / "service.sock"))
        with httpx.Client(transport=way, base_url="http://pikaci") as client:
            return bool(client.get("/v1/statistics").json()["warm"])

    for warm in (False, True):
        done = pikaci("run", "--", "cat private; touch new 2>/dev/null || echo read-only")
        assert (0, "mine\nread-only\n") == (done.returncode, done.stdout), done
        trace = json.loads(pikaci("trace", "--json").stdout)
        assert warm == (trace["warm_secs"] is not None), trace
        wait_until(can_be_claimed)
    service.send_signal(signal.SIGTERM)
    assert 0 == service.wait()


@pytest.mark.parametrize("uid", [1000, 54321], ids=["directories", "volumes"])
def test_over_ssh(tmp_path: Path, uid: int) -> None:
    """Trees are directories there, or volumes."""
    pikaci = Command(tmp_path)
    with far_host(uid=uid) as far:
        pikaci.env |= far.environment
        finds_a_warm_guest(pikaci)

        assert [] == pikaci.leases()


def test_over_tls(tls_pikaci: Command) -> None:
    """In a restricted project, with trees as volumes."""
    finds_a_warm_guest(tls_pikaci)
