"""The fake Incus by itself: jobs, faults, and time that does not pass."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator.contract import contract
from orchestrator.fake_incus import (
    FakeIncus,
    GuestCommand,
    GuestOutcome,
    NotFaked,
    Store,
)
from orchestrator.incus import Incus
from orchestrator.incus.errors import (
    DeadlinePassed,
)
from tests.calls import call
from tests.clock import open_clock
from tests.unit.orchestrator.fake_host import NONCE, RUNNER, Host


async def test_job_leaves_log_and_result(autojump_clock: MockClock, host: Host) -> None:
    """A job's log streams to the client; log and result are collected, with the nonce."""
    await host.boot("j1")
    done = await host.job("j1", "echo hello; exit 7")
    collected = await host.collected("j1")
    result = json.loads(collected["result.json"])

    assert 7 == done.exit_code
    assert done.stdout.startswith(b"[pikaci] incus guest booted at 2026-01-01T")
    assert done.stdout.endswith(b"\nhello\n")
    assert done.stdout == collected["guest.log"]
    assert ("failed", 7, NONCE) == (result["status"], result["exit_code"], result["nonce"])
    assert "test command exited with 7" == result["message"]


async def test_thousand_jobs_in_virtual_time(autojump_clock: MockClock, host: Host) -> None:
    """A thousand whole jobs run side by side under a mock clock, each with its own verdict."""
    codes = {}

    async def one(number: int) -> None:
        name = f"job-{number}"
        await host.boot(name)
        assert 0 == (await host.ready(name)).exit_code
        await host.job(name, f"sleep {number % 50}; exit {number % 3}")
        codes[number] = (await host.result(name))["exit_code"]
        await call(host.incus, "delete", "-q", "--force", f"local:{name}", deadline_secs=9)

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(one, number)

    assert {number: number % 3 for number in range(1000)} == codes
    assert {} == host.fake.instances()


async def test_overrun_is_timed_out(autojump_clock: MockClock, host: Host) -> None:
    """A command past its seconds ends with 124 and says so in its result."""
    await host.boot("j1")
    began = trio.current_time()
    done = await host.job("j1", "sleep 999", timeout_secs=5)
    result = await host.result("j1")

    assert (124, 5) == (done.exit_code, trio.current_time() - began)
    assert ("timed_out", 124) == (result["status"], result["exit_code"])
    assert "test command timed out after 5s" == result["message"]


async def test_lost_client_loses_nothing(autojump_clock: MockClock, host: Host) -> None:
    """A job goes on when its exec was killed, and `follow` gives the rest of the log."""
    await host.boot("j1")
    with pytest.raises(DeadlinePassed):
        await host.job("j1", "echo one; sleep 10; echo two", deadline_secs=3)
    log = await host.exec("j1", RUNNER, "follow", "0")
    rest = await host.exec("j1", RUNNER, "follow", str(len(log.stdout) - 4))

    assert log.stdout.endswith(b"\none\ntwo\n")
    assert b"two\n" == rest.stdout
    assert "passed" == (await host.result("j1"))["status"]


async def test_cancel_waits_for_the_end(autojump_clock: MockClock, host: Host) -> None:
    """`cancel` returns when the result says cancelled; asking again is harmless."""
    await host.boot("j1")
    with pytest.raises(DeadlinePassed):
        await host.job("j1", "sleep 999", timeout_secs=2000, deadline_secs=3)
    first = await host.exec("j1", RUNNER, "cancel")
    again = await host.exec("j1", RUNNER, "cancel", "now")

    assert (0, 0) == (first.exit_code, again.exit_code)
    assert "cancelled" == (await host.result("j1"))["status"]


async def test_guest_script_decides(tmp_path: Path) -> None:
    """A script of the test's own sees command and environment, and leaves artifacts."""
    seen: list[GuestCommand] = []

    async def script(command: GuestCommand) -> GuestOutcome:
        seen.append(command)
        command.print(b"\xff\x00")
        return GuestOutcome(3, {"reports/deep/a.xml": b"<a/>", "reports/b.txt": b"b"})

    async with FakeIncus.open(guest_script=script) as fake:
        host = Host(fake, tmp_path)
        await host.boot("j1")
        done = await host.job("j1", "pytest -k 'a b'\n$X")
        collected = await host.collected("j1", r"\./reports/.*\.xml")

    assert 3 == done.exit_code
    assert done.stdout.endswith(b"\xff\x00")
    assert "pytest -k 'a b'\n$X" == seen[0].text
    assert {"SECRET": "s3cret"} == seen[0].environment
    assert {"result.json", "guest.log", "reports/deep/a.xml"} == collected.keys()


async def test_missing_variable_is_refused_by_the_runner(
    autojump_clock: MockClock, host: Host
) -> None:
    """The runner names the variable that is not set, and so does its result."""
    await host.boot("j1")
    done = await host.exec("j1", "env", "PIKACI_INCUS_GUEST_COMMAND=x", RUNNER, check=False)
    result = await host.result("j1")

    assert 125 == done.exit_code
    assert b"PIKACI_INCUS_TIMEOUT_SECS is not set" in done.stdout
    assert "error" == result["status"]
    assert "PIKACI_INCUS_TIMEOUT_SECS" in result["message"]


@pytest.mark.parametrize(
    ("text", "exit_code", "log"),
    [
        ("true", 0, ""),
        ("false; echo never", 1, ""),
        ("echo 'a  b' c\necho d", 0, "a  b c\nd\n"),
        ("echo one && exit 300", 44, "one\n"),
        ("echo x > /artifacts/f; cat /artifacts/f", 0, "x\n"),
        ("cargo test", 127, "bash: line 1: cargo: command not found\n"),
        ("cat /none", 1, "cat: /none: No such file or directory\n"),
        (
            "echo x > /workspace/snapshot/f",
            1,
            "echo: /workspace/snapshot/f: Read-only file system\n",
        ),
    ],
)
async def test_handful_of_commands(
    autojump_clock: MockClock, host: Host, text: str, exit_code: int, log: str
) -> None:
    """Without a script of the test's own, a job's command is one of a handful, or not found."""
    await host.boot("j1")
    done = await host.job("j1", text)

    assert (exit_code, log) == (done.exit_code, done.stdout.decode().partition("\n")[2])


async def test_redirected_output_is_an_artifact(autojump_clock: MockClock, host: Host) -> None:
    """What a command wrote below /artifacts is collected by its glob."""
    await host.boot("j1")
    await host.job("j1", "echo x > /artifacts/out/a.txt; echo y > /artifacts/out/b.xml")
    collected = await host.collected("j1", r"\./out/[^/]*\.txt")

    assert b"x\n" == collected["out/a.txt"]
    assert "out/b.xml" not in collected


async def test_power_off_ends_guest_and_job(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A job that powers its guest off leaves a stopped instance and a log, but no result."""

    async def script(command: GuestCommand) -> GuestOutcome:
        command.print(b"going down\n")
        command.power_off()
        await trio.sleep_forever()
        raise AssertionError

    async with FakeIncus.open(guest_script=script) as fake:
        host = Host(fake, tmp_path)
        await host.boot("j1")
        done = await host.job("j1", "poweroff")
        log = await call(
            host.incus,
            "file",
            "pull",
            f"local:j1{contract().private}/guest.log",
            "-",
            deadline_secs=9,
        )

        assert (137, b"") == (done.exit_code, done.stderr)
        assert log.stdout.endswith(b"\ngoing down\n")
        assert done.stdout == log.stdout
        assert "Stopped" == fake.instances()["j1"].status


def test_runs_are_alike(tmp_path: Path) -> None:
    """Two runs of one test see the same bytes, times in them included."""

    async def once() -> dict[str, bytes]:
        async with FakeIncus.open() as fake:
            host = Host(fake, tmp_path)
            await host.boot("j1")
            await host.job("j1", "sleep 30; echo hello")
            return await host.collected("j1")

    def run_once() -> dict[str, bytes]:
        with open_clock() as clock:
            return trio.run(once, clock=clock)

    first, second = run_once(), run_once()

    assert first == second
    assert b"2026-01-01T00:00:30" in first["result.json"]


async def test_bare_daemon_can_be_set_up(tmp_path: Path) -> None:
    """A new daemon has no pool, project or image; the commands of a set-up make them."""
    (tmp_path / "metadata.yaml").write_text('{"properties": {"pikaci.contract": "1"}}')
    with tarfile.open(tmp_path / "image", "w") as archive:
        archive.add(tmp_path / "metadata.yaml", "metadata.yaml")
    async with FakeIncus.open(store=Store()) as fake:
        incus = Incus(tmp_path, spawn=fake)
        await call(incus, "storage", "create", "pikaci", "btrfs", deadline_secs=9, in_project=False)
        await call(incus, "project", "create", "pikaci", deadline_secs=9, in_project=False)
        await call(incus, "profile", "create", "pikaci", stdin=b"{}", deadline_secs=9)
        await call(
            incus,
            "image",
            "import",
            str(tmp_path / "image"),
            "local:",
            "--alias",
            "a/b",
            deadline_secs=9,
        )
        document = json.dumps(
            {"devices": {"root": {"type": "disk", "path": "/", "pool": "pikaci"}}}
        )
        names = ("local:a/b", "local:j1")
        await call(
            incus, "create", "--no-profiles", *names, stdin=document.encode(), deadline_secs=9
        )

        assert ["j1"] == list(fake.instances())


async def test_what_is_not_faked_is_loud(host: Host) -> None:
    """A command that the fake has not learnt is an error of the test, not of Incus."""
    for args in (["monitor"], ["list", "--fast"], ["query", "/1.0/cluster"]):
        with pytest.raises(NotFaked):
            await call(host.incus, *args, deadline_secs=9, in_project=False)


async def test_errors_of_the_block_come_through_as_they_are() -> None:
    """`open` does not wrap what its block raises, so that `pytest.raises` sees it."""
    with pytest.raises(ZeroDivisionError):
        async with FakeIncus.open():
            raise ZeroDivisionError


async def test_a_sinks_error_comes_out_as_it_was(autojump_clock: MockClock, host: Host) -> None:
    """As from a real process: what the sink raised, in no group."""
    await host.boot("j1")

    async def sink(chunk: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await host.exec("j1", "echo", "hi", sink=sink)
