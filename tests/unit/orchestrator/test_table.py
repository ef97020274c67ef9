"""`pikaci list` and `status` in columns, at any width."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from orchestrator.cli import run_table
from orchestrator.cli.colours import painter
from orchestrator.cli.table import Column, table
from states.job import fold
from tests.samples import sample_life

WORDS = st.lists(st.text("ab é漢", max_size=30), min_size=3, max_size=3)


def shown(columns: Sequence[Column], width: int | None) -> list[str]:
    return table(columns, width, painter(False), "~")


def columns(ids: list[str], names: list[str], states: list[str], why: list[str]) -> list[Column]:
    return [
        Column("JOB", ids, gives=2),
        Column("NAME", names, 4, least=8, stay=True, middle=True),
        Column("STATE", states, 5, least=8, stay=True),
        Column("QUEUED", ["12 min 34 s"] * 3, gives=3, right=True),
        Column("TIME", ["1 h 2 min"] * 3, right=True),
        Column("WHY", why, gives=1, least=10),
    ]


@given(WORDS, WORDS, WORDS, WORDS, st.integers(32, 120))
def test_every_line_is_narrower_than_the_terminal(
    ids: list[str], names: list[str], states: list[str], why: list[str], width: int
) -> None:
    """Wide characters count twice; each row has its line."""
    lines = shown(columns(ids, names, states, why), width)

    assert 4 == len(lines)
    assert max(map(cell_len, lines)) < width


def test_columns_give_way_in_their_order() -> None:
    """First the reason, then the id, then the time in the queue; names are cut in the middle."""
    rows = columns(
        ["swvcgv4q.1"] * 3, ["integration-tests"] * 3, ["passed"] * 3, ["exited with 3"] * 3
    )

    assert "JOB         NAME               STATE   " == shown(rows, None)[0][:39]
    heads = {width: shown(rows, width)[0].split() for width in (90, 70, 50, 40)}
    assert ["JOB", "NAME", "STATE", "QUEUED", "TIME", "WHY"] == heads[90]
    assert ["JOB", "NAME", "STATE", "QUEUED", "TIME"] == heads[70]
    assert ["NAME", "STATE", "QUEUED", "TIME"] == heads[50]
    assert ["NAME", "STATE", "TIME"] == heads[40]
    assert shown(rows, 34)[1].startswith("integr")


@pytest.mark.parametrize("width", [80, 40, None])
def test_a_job_has_its_time_in_the_queue_apart(
    width: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the document."""
    monkeypatch.setattr(run_table, "_width", lambda: width)
    job = fold(sample_life())

    run_table.print_jobs([job])

    head, row = capsys.readouterr().out.splitlines()
    assert ("QUEUED" in head) and "TIME" in head
    assert "passed" in row
