"""An op of Dagster whose command runs in a throw-away guest, on the machine of the run.

    from dagster_step import pikaci      # in the directory of your definitions

    @job
    def nightly():
        pikaci()

The op's config sets the command, and the directory that the guest sees:

    ops: {pikaci: {config: {command: make check, workspace: /srv/project}}}

After an infrastructure fault, Dagster retries the op. If you terminate a run, its job is cancelled.
"""

from pathlib import Path

from dagster import Config, Failure, OpExecutionContext, RetryRequested, op

from orchestrator import JobSpec, Orchestrator, Settings, Verdict
from orchestrator.blocking import open_sync
from orchestrator.incus.errors import IncusError

TRIES = 2


class Command(Config):
    command: str
    workspace: str
    timeout_secs: int = 3600


@op
def pikaci(context: OpExecutionContext, config: Command) -> str:
    """The id of the job, which passed."""
    spec = JobSpec(command=config.command, timeout_secs=config.timeout_secs)
    # If Dagster resumes a run, it gets the same job; a retry gets a new job.
    key = f"dagster-{context.run_id}-{context.op_handle}-{context.retry_number}"
    try:
        with open_sync(Orchestrator.open(Settings(workspace=Path(config.workspace)))) as opened:
            portal, orchestrator = opened
            job = portal.call(orchestrator.submit_and_wait, spec, key=key)
    except IncusError as fault:
        raise RetryRequested(TRIES) from fault
    why = f"{job.id}: {job.failure.message if job.failure else job.verdict}"
    context.log.info(why)
    if job.verdict is Verdict.INFRASTRUCTURE:
        raise RetryRequested(TRIES)
    if job.verdict is not Verdict.PASSED:
        raise Failure(why, allow_retries=False)
    return job.id
