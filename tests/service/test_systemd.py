"""The service under systemd."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest

from orchestrator.cli.serve import command
from orchestrator.service.sd_notify import sd_notify

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
