"""`pikaci outputs` lists what there is, for people and for programs."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli import pikaci
from orchestrator.outputs.store import OutputRecord, OutputStore
from orchestrator.state_root import StateRoot


@pytest.fixture
def root(tmp_path: Path) -> StateRoot:
    root = StateRoot(tmp_path / "root")
    root.make()
    return root


def publish(root: StateRoot, name: str, run: str, hours: float, **changes: Any) -> OutputRecord:
    """An output that was made so many hours ago."""
    store = OutputStore(root.outputs)
    at = datetime.now(UTC) - timedelta(hours=hours)
    record = OutputRecord(
        key=f"{name[0]}" * 64,
        job=f"{run}.1",
        name=name,
        workspace="/src",
        at=at,
        parts={},
        **changes,
    )
    new = store.begin(run)
    store.publish(new, record, run)
    used = root.outputs / record.directory / "used" / run
    os.utime(used, (at.timestamp(), at.timestamp()))
    return record


def outputs(root: StateRoot, *words: str) -> str:
    done = CliRunner().invoke(
        pikaci, ["outputs", "--state-root", str(root.path), *words], standalone_mode=False
    )
    if done.exception:
        raise done.exception
    return done.output


def test_people_get_a_table(root: StateRoot) -> None:
    """The oldest first; an image has no size; names harm no terminal."""
    deps = publish(root, "deps", "r1", 3.5, size=3 << 20, unkeyed=("egress", "mounts"))
    publish(root, "vm\x1b[31m", "r2", 0.5, fingerprint="f" * 64)
    OutputStore(root.outputs).use(deps, "r2")

    head, first, second, *below = (line.split() for line in outputs(root).splitlines())

    columns = "JOB KEY KIND SIZE MADE BY AGE LAST USE NOT IN KEY"
    assert columns.split() == head
    assert f"deps {'d' * 12} tree 3 MiB r1.1 3 h now egress, mounts".split() == first
    assert f"{'v' * 12} image r2.1 30 min 30 min".split() == second[-7:]
    assert "\x1b" not in outputs(root)
    assert "which is not part of its key" in " ".join(below[0])


def test_programs_get_all_of_it(root: StateRoot) -> None:
    """As one document, or a line for each."""
    record = publish(root, "deps", "r1", 1, size=5, entries=2, unkeyed=("egress",))

    (one,) = json.loads(outputs(root, "--output", "json"))
    line = json.loads(outputs(root, "--output", "jsonl"))

    assert one == line
    assert (record.key, "tree") == (one["key"], one["kind"])
    assert ("r1.1", "deps") == (one["job"], one["name"])
    assert (5, 2, ["egress"], ["r1"]) == (one["size"], one["entries"], one["unkeyed"], one["runs"])


def test_what_every_key_contains_needs_no_column(root: StateRoot) -> None:
    """Nor an explanation."""
    publish(root, "deps", "r1", 1)

    assert "LAST USE" in outputs(root)
    assert "NOT IN KEY" not in outputs(root)


def test_none_are_none(root: StateRoot) -> None:
    """In words, or as an empty list; nothing is created."""
    assert "there are no outputs\n" == outputs(root)
    assert [] == json.loads(outputs(root, "--output", "json"))
    assert not root.outputs.exists()
