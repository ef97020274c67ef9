"""A process that is forked is what a new Python would be, as far as tests look at it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.forks import Forked
from tests.integration.command import wait_until


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PATH": "", "HOME": str(tmp_path), "PIKACI_STATE_ROOT": str(tmp_path / "root")}


@pytest.mark.parametrize("words", ["--version", "list", "run nothing", "nonsense", "logs --help"])
def test_it_says_and_ends_as_a_new_one(words: str, tmp_path: Path, env: dict[str, str]) -> None:
    """Also where the command is wrong."""
    command = [str(Path(sys.executable).with_name("pikaci")), *words.split()]
    new_env = {**env, "PYTHONPATH": str(forks.ROOT)}
    new = subprocess.run(command, env=new_env, cwd=tmp_path, capture_output=True, text=True)
    forked = forks.run(words.split(), env=env, cwd=tmp_path, text=True)

    told = (forked.returncode, forked.stdout, forked.stderr)
    assert (new.returncode, new.stdout, new.stderr) == told


def serve(base: Path, env: dict[str, str]) -> Forked:
    """One that lives, and has said so."""
    process = Forked(["serve"], env={**env, "PATH": os.environ["PATH"]}, cwd=base, process_group=0)
    assert b"serving" in process.stdout.readline()
    return process


def test_it_can_be_signalled_and_ends_with_the_signal(tmp_path: Path, env: dict[str, str]) -> None:
    """By its pid, and by that of its group, in the directory that it was given."""
    process = serve(tmp_path, env)

    assert process.poll() is None
    assert tmp_path == Path(os.readlink(f"/proc/{process.pid}/cwd"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert -signal.SIGKILL == process.returncode == process.wait()


@pytest.mark.parametrize("ignored", [True, False])
def test_it_inherits_which_signals_are_ignored(
    ignored: bool, tmp_path: Path, env: dict[str, str]
) -> None:
    """As `nohup` and a shell's background jobs have it: of today, not of the first start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = serve(tmp_path, env)
        masks = Path(f"/proc/{process.pid}/status").read_text()
    finally:
        signal.signal(signal.SIGHUP, before)
    process.kill()
    process.communicate(timeout=60)

    (mask,) = (line.split()[1] for line in masks.splitlines() if line.startswith("SigIgn"))
    assert ignored is bool(int(mask, 16) & 1 << (signal.SIGHUP - 1))


def test_one_that_ended_before_anyone_read_its_pid(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pid and its exit code are two messages."""

    def send(*given: Any) -> int:
        sent = send_fds(*given)
        time.sleep(1)
        return sent

    send_fds = socket.send_fds
    monkeypatch.setattr(socket, "send_fds", send)

    assert 2 == forks.run(["nonsense"], env=env, cwd=tmp_path).returncode


def test_a_signal_for_one_that_has_just_ended(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is known to the kernel before it is known here: it is no error."""
    process = Forked(["--version"], env=env, cwd=tmp_path)
    assert process.stdout.read() != b""
    wait_until(lambda: not Path(f"/proc/{process.pid}").exists())
    monkeypatch.setattr(process, "poll", lambda: None)

    process.kill()
    assert 0 == process.wait(60)
