"""The service under systemd."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator.cli.serve import command
from orchestrator.service.sd_notify import sd_notify, tell_watchdog

UNIT = (Path(__file__).parents[2] / "docs" / "pikaci.service").read_text().splitlines()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the socket that it names, in the file system or abstract."""
    name = str(tmp_path / "notify") if kind == "path" else f"@pikaci-test{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        sd_notify("READY=1")

        assert b"READY=1" == systemd.recv(100)


@pytest.mark.parametrize("name", ["", "nonsense", "/nobody/listens/here"])
def test_without_a_systemd_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that cannot notify systemd still serves."""
    monkeypatch.setenv("NOTIFY_SOCKET", name)

    sd_notify("READY=1")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield found


async def test_the_watchdog_hears_twice_in_its_time(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """For as long as trio's loop turns."""
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_watchdog)
        for _ in range(100):
            await trio.sleep(31)
            assert b"WATCHDOG=1" == systemd.recv(100)
        nursery.cancel_scope.cancel()


async def test_a_systemd_that_does_not_read_holds_nothing(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Its queue is full soon; the loop turns on."""
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with trio.move_on_after(5000) as scope:
        await tell_watchdog()

    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("microseconds", "process"), [("", ""), ("nonsense", ""), ("0", ""), ("60000000", "1")]
)
async def test_no_watchdog_hears_nothing(
    microseconds: str, process: str, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `WatchdogSec`, and where it is about another process."""
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", process or str(os.getpid()))
    await tell_watchdog()

    with pytest.raises(BlockingIOError):
        systemd.recv(100)


def test_the_unit_starts_what_there_is() -> None:
    """Its command line is one that `pikaci serve` takes."""
    (line,) = (line for line in UNIT if line.startswith("ExecStart="))
    program, verb, *arguments = shlex.split(line.partition("=")[2])

    assert ("pikaci", "serve") == (Path(program).name, verb)
    command.make_context(verb, arguments)


def test_the_unit_leaves_the_jobs_clients_to_the_service() -> None:
    """TERM for all processes would make every job look as if its client had crashed."""
    assert "KillMode=mixed" in UNIT
    assert "Type=notify" in UNIT


def test_a_hang_is_told_and_leaves_no_memory() -> None:
    """A service has secrets in its memory."""
    (variables,) = (line for line in UNIT if line.startswith("Environment="))

    assert "PYTHONFAULTHANDLER=1" in variables.split()
    assert any(line.startswith("WatchdogSec=") for line in UNIT)
    assert "LimitCORE=0" in UNIT
