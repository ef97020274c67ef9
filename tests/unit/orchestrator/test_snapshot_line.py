"""The line that says which tree the jobs see."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.summary import describe_snapshot
from orchestrator.snapshot.snapshot import Snapshot


@pytest.mark.parametrize(
    ("commit", "dirty", "line"),
    [
        ("abcdef0123456789", False, "snapshot 0123456789ab (commit abcdef012345)"),
        ("abcdef0123456789", True, "snapshot 0123456789ab (commit abcdef012345 with changes)"),
        (None, True, "snapshot 0123456789ab (no commit)"),  # of a repository without one
        (None, None, "snapshot 0123456789ab (no commit)"),
    ],
)
def test_it_names_the_commit(commit: str | None, dirty: bool | None, line: str) -> None:
    assert line == describe_snapshot(Snapshot("0123456789abcdef", Path("/s"), commit, dirty))
