"""What /readyz says, to those who submit jobs or restart the service."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from orchestrator.service import readiness
from tests.service.served import open_served


async def test_without_a_daemon_it_is_not_ready() -> None:
    """It says why, and is ready when the daemon answers again; it is alive all the time."""
    async with open_served() as served:
        served.fake.kill_daemon()
        away = await served.http.get("/readyz")
        alive = await served.http.get("/healthz")
        served.fake.restart_daemon()
        back = await served.http.get("/readyz")

    assert (503, 200, 200) == (away.status_code, alive.status_code, back.status_code)
    assert "daemon" in away.json()["title"]


async def test_a_good_answer_is_remembered_for_a_while(autojump_clock: MockClock) -> None:
    """Frequent requests do not keep Incus busy; a dead daemon is not ready for long."""
    async with open_served() as served:
        check = readiness.Readiness(served.orchestrator, served.stopping).check
        await check()
        served.fake.kill_daemon()
        await check()
        autojump_clock.jump(readiness.REMEMBERED_SECS)
        with pytest.raises(Exception, match="daemon"):
            await check()
        served.fake.restart_daemon()


async def test_on_a_full_disk_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal would run out of space; the answer says what to do."""
    async with open_served() as served:
        monkeypatch.setattr(readiness, "LEAST_BYTES", 1 << 60)
        full = await served.http.get("/readyz")

    assert 503 == full.status_code
    assert "pikaci gc" in full.json()["resolution"]
