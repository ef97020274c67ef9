"""`pikaci run --key` tells of no run before it is known which one it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.run_request import Opening
from orchestrator.cli.watch import JsonWatch
from orchestrator.job.submission import Request
from orchestrator.snapshot.snapshot import Snapshot, snapshot_of
from states import events as ev
from states.spec import JobSpec

REQUEST = Request(Path("/src"), {"job": JobSpec(command="true")}, key="commit-1")


class Told(JsonWatch):
    """What was told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def begin(self, run: str, request: Request) -> None:
        self.lines.append(f"run {run}")

    def snapshot(self, snapshot: Snapshot) -> None:
        self.lines.append("snapshot")

    def stopping(self) -> None:
        self.lines.append("stopping")


def snapshot() -> Snapshot:
    return snapshot_of(ev.SnapshotRef(hash="a" * 64), Path("/snapshots/a"))


@pytest.mark.parametrize(
    ("run", "lines"), [("own", ["run own", "snapshot"]), ("other", ["run other"])]
)
def test_the_run_is_told_when_it_is_submitted(run: str, lines: list[str]) -> None:
    """Another process may have won: then neither our id nor our snapshot is the run's."""
    told = Told()
    opening = Opening(told, REQUEST, "own")
    opening.snapshot(snapshot())
    before = list(told.lines)
    opening.tell(run)
    opening.tell("own")

    assert [] == before
    assert lines == told.lines
    assert run == opening.shown


def test_a_signal_before_the_run_is_told_counts_no_jobs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There may be none, or another process's."""
    told = Told()
    opening = Opening(told, REQUEST, "own")
    opening.stopping()
    opening.tell("own")
    opening.stopping()

    assert "Stopping. Press Ctrl-C again to kill the jobs now.\n" == capsys.readouterr().err
    assert ["run own", "stopping"] == told.lines


def test_without_a_key_it_is_told_at_once() -> None:
    """It has no other than its own, and its snapshot may take long."""
    told = Told()
    opening = Opening(told, REQUEST, "own")
    opening.tell("own")
    before = list(told.lines)
    opening.snapshot(snapshot())

    assert ["run own"] == before
    assert ["run own", "snapshot"] == told.lines
