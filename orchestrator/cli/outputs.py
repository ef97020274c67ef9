"""`pikaci outputs`: what jobs left for other jobs."""

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
    from collections.abc import Sequence

    from orchestrator.cli.documents import OutputDocument

# As much of a key as tells outputs apart.
KEY = 12


@click.command("outputs")
@workspace_option
@state_root_option
@output_option
def command(workspace: Path | None, state_root: Path | None, output: str) -> int:
    """List the outputs that jobs made for other jobs, the newest last.

    NOT IN KEY names what else the job could use, such as the network. If that changes, the output
    is still reused. `pikaci run --fresh` rebuilds outputs, `pikaci gc` deletes those of old runs.
    """
    from orchestrator.cli.documents import OutputDocument
    from orchestrator.cli.output import print_items
    from orchestrator.outputs.store import OutputStore

    store = OutputStore(state_root_of(real_workspace(workspace), state_root).outputs)
    found = [OutputDocument.of(record, store.runs(record.directory)) for record in store.all()]
    if not print_items(output, found):
        _show(found)
    return 0


def _show(found: Sequence[OutputDocument]) -> None:
    from datetime import UTC, datetime

    from orchestrator.cli.run_table import print_table
    from orchestrator.cli.table import Column
    from orchestrator.terminal import plain
    from orchestrator.units import age, size

    if not found:
        click.echo("there are no outputs")
        return
    now = datetime.now(UTC)

    def since(moment: datetime | None) -> str:
        return age((now - moment).total_seconds()) if moment is not None else ""

    columns = [
        Column("JOB", [plain(one.name) for one in found], 5, least=8, stay=True, middle=True),
        Column("KEY", [one.key[:KEY] for one in found], gives=2),
        Column("KIND", [one.kind for one in found], gives=4),
        Column("SIZE", [size(one.size) if one.size else "" for one in found], right=True),
        Column("MADE BY", [plain(one.job) for one in found], gives=3),
        Column("AGE", [since(one.at) for one in found], right=True),
        Column("LAST USE", [since(one.last_use) for one in found], right=True),
        Column("NOT IN KEY", [", ".join(one.unkeyed) for one in found], gives=1, least=8),
    ]
    beyond = any(one.unkeyed for one in found)
    print_table(columns if beyond else columns[:-1])
    if beyond:
        click.echo(
            "NOT IN KEY: the job could also use this, which is not part of its key; when it"
            " changes, the output is still reused\n"
            "  -> `pikaci run --fresh` rebuilds outputs, `max_age_secs` sets an age for that"
        )
