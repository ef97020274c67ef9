"""A workspace that leaves nothing behind; and the figures of the projects that were tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.projects.workspace import Workspace

_HEAD = ("project", "lines of the job file", "cold (s)", "second (s)", "guest", "host")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A directory that the test makes, with a state root; it is emptied behind the test."""
    made = Workspace(tmp_path)
    yield made
    made.clean_up()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = dict(getattr(report, "user_properties", ()))
            if isinstance(report, pytest.TestReport) and report.when == "call" and "lines" in found:
                rows.append(_row(report.nodeid.rpartition("[")[2].rstrip("]"), found))
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    terminalreporter.section("projects of other people")
    for row in (_HEAD, *sorted(rows)):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.line(line.rstrip())


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    secs = [f"{found[key]:.1f}" if key in found else "-" for key in ("cold", "second")]
    counts = [_counts(found.get(key)) for key in ("guest", "host")]
    return (name, str(found["lines"]), *secs, *counts)


def _counts(found: dict[str, int] | None) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in found.items()) if found else "-"
