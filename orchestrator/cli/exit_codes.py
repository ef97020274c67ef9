"""What `pikaci run` exits with, of the two tables that a person can choose from."""

from __future__ import annotations

import enum
from collections.abc import Callable

from orchestrator.cli.ending import tell
from orchestrator.report import RunReport
from states.outcome import EXIT_CODES, EXIT_NO_JOBS, Verdict

# With `--exit-code command`, what is no exit code of the command's own.
RESERVED = {
    Verdict.TIMED_OUT: 240,
    Verdict.INFRASTRUCTURE: 241,
    Verdict.UNFINISHED: 241,
    Verdict.REJECTED: 242,
    Verdict.CANCELLED: 243,
}
# In place of what a command exits with that could not do its work.
_RESERVED_FOR = {
    EXIT_NO_JOBS: RESERVED[Verdict.REJECTED],
    **{EXIT_CODES[verdict]: code for verdict, code in RESERVED.items()},
}


class ExitCodes(enum.StrEnum):
    """The values of `--exit-code`."""

    PIKACI = "pikaci"
    COMMAND = "command"

    def of(self, report: RunReport) -> int:
        """The exit code for a run that has ended.

        The command's own is that of the one job, if its command came to its end.
        """
        if self is ExitCodes.PIKACI:
            return report.exit_code
        if report.outcome in (Verdict.PASSED, Verdict.FAILED):
            (job,) = report.jobs
            if job.exit_code is not None:
                passed = report.outcome is Verdict.PASSED
                return job.exit_code or (0 if passed else EXIT_CODES[Verdict.FAILED])
        return RESERVED.get(report.outcome, RESERVED[Verdict.INFRASTRUCTURE])

    def guard(self, run: Callable[[], int]) -> int:
        """What `run` returns; when it raises with `COMMAND`, that is told, and has a code too."""
        if self is ExitCodes.PIKACI:
            return run()
        try:
            return run()
        except BaseException as error:
            code = tell(error)
            return _RESERVED_FOR.get(code, code)
