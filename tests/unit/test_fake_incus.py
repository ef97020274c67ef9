"""The fake Incus by itself: jobs, faults, and time that does not pass."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.contract import contract
from orchestrator.fake_incus import (
    FINGERPRINT,
    FakeIncus,
    GuestCommand,
    GuestOutcome,
    NotFaked,
    Store,
    words,
)
from orchestrator.incus import Completed, Incus
from orchestrator.incus_errors import (
    DaemonUnreachable,
    DeadlinePassed,
    InstanceNotFound,
    OutcomeUnknown,
    PoolFull,
)

RUNNER = contract().runner
NONCE = "n0nce"
DOCUMENT = json.dumps(
    {
        "config": {"user.pikaci.owner": "test-fake"},
        "devices": {
            "root": {"type": "disk", "path": "/", "pool": "pikaci"},
            "pikaci-snapshot": {
                "type": "disk",
                "source": "/usr",
                "path": "/workspace/snapshot",
                "readonly": "true",
                "shift": "true",
            },
        },
        "profiles": [],
    }
).encode()


class Host:
    """The calls of one job, as the orchestrator makes them."""

    def __init__(self, fake: FakeIncus, conf: Path) -> None:
        self.fake = fake
        self.incus = Incus(conf, spawn=fake)

    async def boot(self, name: str) -> None:
        await self.incus.run(
            "create", "-q", f"local:{FINGERPRINT}", f"local:{name}", stdin=DOCUMENT, deadline_secs=9
        )
        await self.incus.run("start", "-q", f"local:{name}", deadline_secs=9)

    async def exec(self, name: str, *argv: str, **options: Any) -> Completed:
        options.setdefault("deadline_secs", 1000)
        return await self.incus.run(
            "exec", "-q", "--force-noninteractive", "-T", f"local:{name}", "--", *argv, **options
        )

    async def ready(self, name: str) -> Completed:
        script = ("sh", "-c", "wait", "pikaci-ready", "20", RUNNER, "/workspace/snapshot")
        return await self.exec(name, *script, check=False)

    async def job(self, name: str, text: str, timeout_secs: int = 60, **options: Any) -> Completed:
        variables = (
            f"PIKACI_INCUS_GUEST_COMMAND={text}",
            f"PIKACI_INCUS_TIMEOUT_SECS={timeout_secs}",
            "PIKACI_INCUS_RUN_AS_ROOT=0",
        )
        stdin = f"PIKACI_INCUS_NONCE={NONCE}\0SECRET=s3cret\0".encode()
        return await self.exec(name, "env", *variables, RUNNER, stdin=stdin, check=False, **options)

    async def collected(self, name: str, expression: str = "none") -> dict[str, bytes]:
        pack = ("sh", "-c", "pack", "pikaci-collect", "/artifacts", expression)
        done = await self.exec(name, *pack, "./result.json", "./guest.log")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            return {
                member.name.removeprefix("./"): archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
            }

    async def result(self, name: str) -> Any:
        return json.loads((await self.collected(name))["result.json"])


@pytest.fixture
async def fake(autojump_clock: MockClock) -> AsyncIterator[FakeIncus]:
    async with FakeIncus.open() as fake:
        yield fake


@pytest.fixture
def host(fake: FakeIncus, tmp_path: Path) -> Host:
    return Host(fake, tmp_path / "conf")


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
        await host.incus.run("delete", "-q", "--force", f"local:{name}", deadline_secs=9)

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
    assert b"PIKACI_INCUS_TIMEOUT_SECS" in done.stderr
    assert "error" == result["status"]
    assert "PIKACI_INCUS_TIMEOUT_SECS" in result["message"]


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
        await host.incus.run("delete", "local:j1", deadline_secs=9)
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
        await host.incus.run("delete", "--force", "local:j1", deadline_secs=9)
    await trio.sleep(20)

    assert ["j1"] == list(host.fake.instances())


async def test_hang_ends_at_the_deadline(autojump_clock: MockClock, host: Host) -> None:
    """A call that hangs is ended by its deadline, and has done nothing."""
    await host.boot("j1")
    host.fake.hang("delete", name="j1")
    with pytest.raises(DeadlinePassed):
        await host.incus.run("delete", "--force", "local:j1", deadline_secs=9)

    assert ["j1"] == list(host.fake.instances())


async def test_daemon_killed_under_a_job(autojump_clock: MockClock, host: Host) -> None:
    """When the daemon dies the exec breaks off, the job goes on, and its result is there."""
    await host.boot("j1")
    broken: list[Completed] = []

    async def run() -> None:
        broken.append(await host.job("j1", "sleep 30; echo end"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(10)
        host.fake.kill_daemon()
        with pytest.raises(DaemonUnreachable):
            await host.exec("j1", "true")
        await trio.sleep(30)
    host.fake.restart_daemon()

    assert 1 == broken[0].exit_code
    assert b"close 1006" in broken[0].stderr
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
        log = await host.incus.run(
            "file", "pull", f"local:j1{contract().private}/guest.log", "-", deadline_secs=9
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

    first, second = (trio.run(once, clock=MockClock(autojump_threshold=0)) for _ in range(2))

    assert first == second
    assert b"2026-01-01T00:00:30" in first["result.json"]


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

    assert "result.json" in await host.collected("j1")
    with pytest.raises(OutcomeUnknown):
        await host.collected("j2")
    host.fake.heal()
    assert "result.json" in await host.collected("j2")


async def test_bare_daemon_can_be_set_up(tmp_path: Path) -> None:
    """A new daemon has no pool, project or image; the commands of a set-up make them."""
    (tmp_path / "image").write_bytes(b"an image")
    async with FakeIncus.open(store=Store()) as fake:
        incus = Incus(tmp_path, spawn=fake)
        await incus.run_global("storage", "create", "pikaci", "btrfs", deadline_secs=9)
        await incus.run_global("project", "create", "pikaci", deadline_secs=9)
        await incus.run("profile", "create", "pikaci", stdin=b"{}", deadline_secs=9)
        await incus.run(
            "image", "import", str(tmp_path / "image"), "local:", "--alias", "a/b", deadline_secs=9
        )
        document = json.dumps(
            {"devices": {"root": {"type": "disk", "path": "/", "pool": "pikaci"}}}
        )
        names = ("local:a/b", "local:j1")
        await incus.run("create", "--no-profiles", *names, stdin=document.encode(), deadline_secs=9)

        assert ["j1"] == list(fake.instances())


async def test_what_is_not_faked_is_loud(host: Host) -> None:
    """A command that the fake has not learnt is an error of the test, not of Incus."""
    for args in (["monitor"], ["list", "--fast"], ["query", "/1.0/cluster"]):
        with pytest.raises(NotFaked):
            await host.incus.run_global(*args, deadline_secs=9)


async def test_errors_of_the_block_come_through_as_they_are() -> None:
    """`open` does not wrap what its block raises, so that `pytest.raises` sees it."""
    with pytest.raises(ZeroDivisionError):
        async with FakeIncus.open():
            raise ZeroDivisionError
