"""Runs have short numbers beside their ids, for people."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import trio
from click.testing import CliRunner

from orchestrator.cli.find import find_jobs
from orchestrator.cli.group import pikaci
from orchestrator.errors import UsageError
from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from states import events as ev
from tests.samples import sample_event


@pytest.fixture
def root(tmp_path: Path) -> StateRoot:
    """Three runs; a job of the second one is called `1`."""
    root = StateRoot(tmp_path)
    rejected = sample_event(ev.Rejected, 1)

    async def write() -> None:
        with open_journal(root.journal) as journal:
            for run, name in (("aa", "lint"), ("bb", "1"), ("cc", "unit")):
                job = msgspec.structs.replace(rejected, job=f"{run}.1", run=run, name=name)
                await journal.append(job)

    trio.run(write)
    return root


def test_a_number_stands_for_a_run(root: StateRoot) -> None:
    """`#2` always, `2` if no job has that name; what does not exist is told."""
    with open_journal(root.journal) as journal:
        found = {word: find_jobs(journal, word)[0].run for word in ("#1", "1", "2", "#3", "cc")}
        for word in ("#4", "4", "#", "#x"):
            with pytest.raises(UsageError, match="there is no job or run"):
                find_jobs(journal, word)

    assert {"#1": "aa", "1": "bb", "2": "bb", "#3": "cc", "cc": "cc"} == found


def test_lists_have_the_numbers(root: StateRoot) -> None:
    """Newest first, in a column and in JSON."""
    options = ["list", "--state-root", str(root.path)]
    lines = CliRunner().invoke(pikaci, options).output.splitlines()
    found = CliRunner().invoke(pikaci, [*options, "--output", "json"]).output

    assert ["RUN", "NO"] == lines[0].split()[:2]
    assert [["cc", "#3"], ["bb", "#2"], ["aa", "#1"]] == [line.split()[:2] for line in lines[1:]]
    assert [3, 2, 1] == [run["number"] for run in json.loads(found)]
