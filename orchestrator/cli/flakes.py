"""`pikaci flakes`: jobs that passed and failed with the same inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

if TYPE_CHECKING:
    from orchestrator.outlook import FlakeDocument

# So many flaky tests of a job are named.
NAMED = 5


@click.command("flakes")
@workspace_option
@state_root_option
@click.option(
    "-n",
    "--last",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="List the newest N flakes.",
)
@output_option
def command(workspace: Path | None, state_root: Path | None, last: int, output: str) -> int:
    """List jobs that passed and failed with the same inputs, the newest first.

    The inputs are the snapshot, the image, the outputs of other jobs, and the job's spec. If jobs
    have test reports, the flaky tests are named.
    """
    from orchestrator.cli.find import read_existing_journal
    from orchestrator.cli.output import print_items
    from orchestrator.outlook import read_flakes

    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        found = read_flakes(journal, limit=last)
    if not print_items(output, found):
        _show(found)
    return 0


def _show(found: list[FlakeDocument]) -> None:
    from orchestrator.cli.run_table import print_table
    from orchestrator.cli.table import Column
    from orchestrator.terminal import plain

    if not found:
        click.echo("no job passed and failed with the same inputs")
        return
    tests = [", ".join(plain(test.name) for test in one.tests[:NAMED]) for one in found]
    columns = [
        Column("NAME", [plain(one.name) for one in found], least=8, stay=True, middle=True),
        Column("FAILED", [f"{one.failed} of {one.failed + one.passed}" for one in found]),
        Column("FAILED IN", [plain(one.failed_job) for one in found], gives=3),
        Column("PASSED IN", [plain(one.passed_job) for one in found], gives=4),
        Column("FLAKY TESTS", tests, gives=1, least=10),
    ]
    print_table(columns if any(tests) else columns[:-1])
    click.echo(f"-> pikaci trace diff {plain(found[0].passed_job)} {plain(found[0].failed_job)}")
