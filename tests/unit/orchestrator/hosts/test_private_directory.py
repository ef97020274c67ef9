"""The directory of forwarded sockets."""

import os
from pathlib import Path

import pytest

from orchestrator.hosts.private_directory import PREFIX, PrivateDirectory


def test_one_that_a_killed_process_left_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a live process stays, however old, and so does a young one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    live = PrivateDirectory()
    dead, young = tmp_path / f"{PREFIX}dead", tmp_path / f"{PREFIX}young"
    for path in (dead, young):
        path.mkdir()
        (path / "incus").touch()
    for path in (dead, live.path):
        os.utime(path, (1, 1))

    other = PrivateDirectory()

    assert {live.path, young, other.path} == set(tmp_path.iterdir())
    assert 0o700 == live.path.stat().st_mode & 0o777
    live.close()
    other.close()
    assert [young] == list(tmp_path.iterdir())
