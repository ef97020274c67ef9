"""The two tables of exit codes."""

from __future__ import annotations

import pytest

from orchestrator.cli.exit_codes import ExitCodes
from orchestrator.errors import NoJobs, UsageError
from states.errors import PikaciError


@pytest.mark.parametrize(
    ("error", "code"),
    [(PikaciError("gone"), 241), (UsageError("wrong"), 242), (NoJobs("none"), 242)],
)
def test_what_cannot_run_has_a_code_that_no_passing_command_has(
    error: PikaciError, code: int
) -> None:
    """As docs/output.md says: 241 for infrastructure, 242 for a mistake."""

    def run() -> int:
        raise error

    assert code == ExitCodes.COMMAND.guard(run)
