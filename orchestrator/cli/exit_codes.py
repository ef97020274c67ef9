"""What `pikaci run` exits with, of the two tables that a person can choose from."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from orchestrator.cli.ending import tell
from orchestrator.errors import UsageError
from orchestrator.report import RunReport
from states.graph import needed_by_none
from states.lifecycle import State
from states.outcome import EXIT_CODES, EXIT_NO_JOBS, Verdict
from states.spec import JobSpec

# With `--exit-code command`, what is no exit code of the command's own.
RESERVED = {
    Verdict.TIMED_OUT: 240,
    Verdict.INFRASTRUCTURE: 241,
    Verdict.UNFINISHED: 241,
    Verdict.REJECTED: 242,
    Verdict.CANCELLED: 243,
}
# Of a command that did not run, as a job that it needs failed.
NEEDED_FAILED = 244
# In place of what a command exits with that could not do its work.
_RESERVED_FOR = {
    EXIT_NO_JOBS: RESERVED[Verdict.REJECTED],
    **{EXIT_CODES[verdict]: code for verdict, code in RESERVED.items()},
}


class ExitCodes(enum.StrEnum):
    """The values of `--exit-code`."""

    PIKACI = "pikaci"
    COMMAND = "command"

    def check(self, specs: Mapping[str, JobSpec]) -> None:
        """Raise `UsageError` for jobs of which none is the one whose code would be meant."""
        last = needed_by_none(specs)
        if self is ExitCodes.COMMAND and len(last) != 1:
            raise UsageError(
                f"--exit-code command needs one job, and there are {len(last)}: {', '.join(last)}",
                resolution="name one job, or remove the option",
            )

    def of(self, report: RunReport) -> int:
        """The exit code for a run that has ended.

        `COMMAND` returns that of the last job's command, the job that no other needs, if it ended.
        """
        if self is ExitCodes.PIKACI:
            return report.exit_code
        if report.outcome in (Verdict.PASSED, Verdict.FAILED):
            needed = {id for job in report.jobs for id in job.needs.values()}
            # More than one only if a job cannot be read, which then is a fault.
            job = next(job for job in report.jobs if job.id not in needed)
            if job.state is State.REUSED:
                return 0
            if job.verdict is Verdict.SKIPPED:
                return NEEDED_FAILED
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
