"""Whoever waits for a snapshot sees how far it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from orchestrator.cli.progress_line import ProgressLine, describe_progress
from orchestrator.job import publisher
from orchestrator.job.publisher import PROGRESS_SECS, Publisher
from orchestrator.snapshot.progress import Progress
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.state_root import StateRoot


async def test_a_slow_snapshot_is_told_each_second(
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And no more once it is there; a fast one is not told at all."""
    snapshot = Snapshot("abc", tmp_path, None, None)

    async def publish(*args: object, progress: Progress, **named: object) -> Snapshot:
        progress.begin("reading", 2)
        await trio.sleep(secs)
        return snapshot

    monkeypatch.setattr(publisher, "publish", publish)
    told: list[Progress] = []
    made = Publisher(StateRoot(tmp_path / "root"), workspace, told.append)

    secs = 2.5 * PROGRESS_SECS
    assert snapshot == await made.publish(None)
    await trio.sleep(10)
    assert 2 == len(told)
    secs = PROGRESS_SECS / 2
    await made.publish(None)
    assert 2 == len(told)


def test_a_line_says_how_far_it_is() -> None:
    """While files are listed, their number is not known."""
    progress = Progress()
    listing = describe_progress(progress)
    progress.begin("copying", 3)
    progress.count(2048)

    assert "snapshot: listing files" == listing
    assert "snapshot: copying 1 of 3 files, 2 KiB" == describe_progress(progress)
    progress.begin("packing", 0)
    assert "snapshot: packing git's history, 0 B" == describe_progress(progress)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_line_is_for_terminals(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written over, and cleared once; a log file has nothing of it."""
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal and descriptor == 2)
    monkeypatch.setenv("TERM", "xterm")
    said: list[str] = []
    line = ProgressLine(said.append)
    line.show(None)
    line.show(Progress())
    line.show(None)
    line.show(None)

    expected = "\r\x1b[Ksnapshot: listing files\r\x1b[K" if terminal else ""
    assert expected == "".join(said)
