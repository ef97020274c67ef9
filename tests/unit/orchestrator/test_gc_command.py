"""`pikaci gc` says what it freed."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from click.testing import CliRunner

from orchestrator.cli import pikaci
from orchestrator.state_root import StateRoot
from tests.unit.orchestrator.gc_ground import Ground
from tests.unit.orchestrator.gc_ground import ground as ground


def gc_command(root: StateRoot, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(
        pikaci, ["gc", "--state-root", str(root.path), *words], standalone_mode=False
    )
    if done.exception:
        raise done.exception
    return done.return_value, done.output


async def test_the_command_says_what_it_freed(ground: Ground) -> None:
    """20 runs stay when no bound is given; another bound stands alone; sizes are shown."""
    for number in range(21):
        await ground.run(f"r{number}", age=timedelta(days=21 - number))

    old = gc_command(ground.root, "--older-than", "30d")
    default = gc_command(ground.root)
    aged = gc_command(ground.root, "--older-than", "36h", "--dry-run")
    sized = gc_command(ground.root, "--max-size", "16K")

    assert (0, "deleted 0 runs, 0 jobs, 0 snapshots and 0 outputs: 0 B\n") == old
    assert 0 == default[0]
    assert re.fullmatch(
        r"deleted 1 run, 1 job, 0 snapshots and 0 outputs: [0-9.]+ KiB\n", default[1]
    )
    assert "would delete 19 runs" in aged[1]
    assert re.fullmatch(
        r"deleted 20 runs, 20 jobs, 1 snapshot and 0 outputs: [0-9.]+ KiB\n", sized[1]
    )


@pytest.mark.parametrize(
    "words",
    [["--older-than", "30"], ["--older-than", "-1d"], ["--max-size", "5"], ["--max-size", "5X"]],
)
def test_a_bound_that_is_none_says_what_is_allowed(ground: Ground, words: list[str]) -> None:
    """One clear line, with examples."""
    done = CliRunner().invoke(pikaci, ["gc", *words])

    assert 2 == done.exit_code
    assert "is not a valid" in done.output
    assert "write " in done.output
