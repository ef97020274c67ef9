"""Shows the results of checks, as they come."""

from __future__ import annotations

import sys

import click

from orchestrator.host.row import Row
from orchestrator.terminal import plain

_MARKS = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "missing": ("MISSING", "red"),
    "damaged": ("DAMAGED", "red"),
}


def print_row(row: Row) -> None:
    """Print a row, and below it what to type."""
    word, colour = _MARKS[row.state]
    mark = click.style(f"{word:8}", fg=colour) if sys.stdout.isatty() else f"{word:8}"
    click.echo(f"{mark} {row.subject:14} {plain(row.found)}")
    for line in row.remedy.splitlines():
        click.echo(f"{'':8} {'':14} -> {plain(line)}")
