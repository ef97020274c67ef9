"""Faults on command: each strikes what it names, as often as it was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.fake_incus import (
    words,
)
from orchestrator.incus.errors import (
    DaemonUnreachable,
    DeadlinePassed,
    InstanceNotFound,
    InstanceNotRunning,
    OutcomeUnknown,
    PoolFull,
)
from tests.calls import call
from tests.unit.orchestrator.fake_host import RUNNER, Host


async def test_readiness_names_what_is_missing(autojump_clock: MockClock, host: Host) -> None:
    """A guest that never gets its mount says which, after the seconds it was given."""
    await host.boot("j1")
    host.fake.never_ready()
    began = trio.current_time()
    first = await host.ready("j1")
    waited = trio.current_time() - began
    second = await host.ready("j1")

    assert (75, b"the mount /workspace/snapshot", 20) == (first.exit_code, first.stdout, waited)
    assert 0 == second.exit_code


async def test_failure_strikes_as_often_as_asked(autojump_clock: MockClock, host: Host) -> None:
    """A fault strikes the named verb the given number of times, and nothing else."""
    host.fake.fail("start", with_error="Server isn't ready yet", times=2)
    for _ in range(2):
        with pytest.raises(DaemonUnreachable):
            await host.boot("j1")
        await call(host.incus, "delete", "local:j1", deadline_secs=9)
    await host.boot("j1")

    assert "Running" == host.fake.instances()["j1"].status


async def test_carried_out_but_reported_as_lost(autojump_clock: MockClock, host: Host) -> None:
    """A create whose acknowledgement is lost has made its instance all the same."""
    host.fake.fail("create", with_error="unexpected EOF", carried_out=True)
    with pytest.raises(OutcomeUnknown):
        await host.boot("j1")

    assert "Stopped" == host.fake.instances()["j1"].status


async def test_late_create_appears_after_its_client_died(
    autojump_clock: MockClock, host: Host
) -> None:
    """A killed create can leave an instance seconds after its name was not found."""
    host.fake.late("create", secs=20)
    with pytest.raises(DeadlinePassed):
        await host.boot("j1")
    with pytest.raises(InstanceNotFound):
        await call(host.incus, "delete", "--force", "local:j1", deadline_secs=9)
    await trio.sleep(20)

    assert ["j1"] == list(host.fake.instances())


async def test_hang_ends_at_the_deadline(autojump_clock: MockClock, host: Host) -> None:
    """A call that hangs is ended by its deadline, and has done nothing."""
    await host.boot("j1")
    host.fake.hang("delete", name="j1")
    with pytest.raises(DeadlinePassed):
        await call(host.incus, "delete", "--force", "local:j1", deadline_secs=9)

    assert ["j1"] == list(host.fake.instances())


async def test_daemon_killed_under_a_job(autojump_clock: MockClock, host: Host) -> None:
    """When the daemon dies the exec breaks off, the job goes on, and its result is there."""
    await host.boot("j1")

    async def run() -> None:
        with pytest.raises(OutcomeUnknown) as broken:
            await host.job("j1", "sleep 30; echo end")
        assert "close 1006" in broken.value.details

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(10)
        host.fake.kill_daemon()
        with pytest.raises(DaemonUnreachable):
            await host.exec("j1", "true")
        await trio.sleep(30)
    host.fake.restart_daemon()

    assert "passed" == (await host.result("j1"))["status"]


@pytest.mark.parametrize("how", ["stop_guest", "delete_guest"])
async def test_guest_gone_under_a_job(autojump_clock: MockClock, host: Host, how: str) -> None:
    """A job whose guest goes ends with 137 and silence, and leaves no result."""
    await host.boot("j1")
    files = host.fake.instances()["j1"].files

    async def strike() -> None:
        await trio.sleep(10)
        getattr(host.fake, how)("j1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(strike)
        done = await host.job("j1", "sleep 30")

    assert (137, b"") == (done.exit_code, done.stderr)
    assert "/artifacts/result.json" not in files


@pytest.mark.parametrize(
    ("how", "left"),
    [("missing", None), ("empty", b""), ("torn", b'{"schema"'), ("foreign", b'"of-another-job"')],
)
async def test_spoilt_results(
    autojump_clock: MockClock, host: Host, how: Any, left: bytes | None
) -> None:
    """A result can be missing, empty, torn or another job's; the log is there all the same."""
    await host.boot("j1")
    host.fake.spoil_result(how)
    await host.job("j1", "true")
    collected = await host.collected("j1")

    assert "guest.log" in collected
    content = collected.get("result.json")
    assert (left is None) == (content is None)
    assert (left or b"") in (content or b"")
    if how == "torn":
        with pytest.raises(json.JSONDecodeError):
            json.loads(content or b"")


async def test_pool_that_is_full(autojump_clock: MockClock, host: Host) -> None:
    """The words of the real Incus are at hand for faults, and read as the type they mean."""
    host.fake.fail("create", with_error=words.POOL_FULL)
    with pytest.raises(PoolFull):
        await host.boot("j1")

    assert {} == host.fake.instances()


async def test_faults_strike_programs_in_the_guest(autojump_clock: MockClock, host: Host) -> None:
    """A fault can be for one kind of exec alone, and for one instance."""
    await host.boot("j1")
    await host.boot("j2")
    host.fake.fail("pikaci-collect", with_error=words.CONNECTION_LOST, name="j2", times=9)
    await host.job("j1", "true")
    await host.job("j2", "true")

    host.fake.fail("pikaci-incus-run cancel", with_error=words.NOT_RUNNING)

    assert "result.json" in await host.collected("j1")
    assert 0 == (await host.exec("j1", RUNNER, "follow", "0")).exit_code
    with pytest.raises(InstanceNotRunning):
        await host.exec("j1", RUNNER, "cancel")
    with pytest.raises(OutcomeUnknown):
        await host.collected("j2")
    host.fake.heal()
    assert "result.json" in await host.collected("j2")
