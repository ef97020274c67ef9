"""Procrastinate, a queue in PostgreSQL, runs one pikaci job for each job of the queue.

If a worker dies, the queue delivers its job again. With a key, it gets the same pikaci run again.
libpq's variables, such as PGHOST, name the database.

export PYTHONPATH=docs/examples PROCRASTINATE_APP=procrastinate_queue.app
procrastinate schema --apply
procrastinate defer procrastinate_queue.check '{"command": "make check"}'
python -c 'from procrastinate_queue import main; main()' WORKSPACE    # one worker of several
"""

import asyncio
import sys
from pathlib import Path

from procrastinate import App, JobContext, PsycopgConnector

from orchestrator import JobSpec, Orchestrator, Settings, Verdict
from orchestrator.aio import open as open_aio

# A worker that is silent for this long is dead, and another worker gets its jobs.
DEAD_SECS = 5

app = App(connector=PsycopgConnector())


@app.task(name="procrastinate_queue.check", pass_context=True)
async def check(context: JobContext, command: str) -> None:
    portal, orchestrator = context.additional_context["pikaci"]
    spec = JobSpec(command=command, memory="512MiB", cpus=1)
    # The queue's id for this job: it stays the same when the job is delivered again.
    key = f"procrastinate-{context.job.id}"
    job = await portal.call(orchestrator.submit_and_wait, spec, key=key)
    print(f"{job.id}: {job.verdict}", flush=True)
    if job.verdict is not Verdict.PASSED:
        raise RuntimeError(f"{job.id}: {job.verdict}")


@app.periodic(cron="* * * * * */5")
@app.task(name="procrastinate_queue.deliver_again", queueing_lock="again")
async def deliver_again(timestamp: int) -> None:
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=DEAD_SECS):
        await app.job_manager.retry_job(job)


async def work(workspace: Path) -> None:
    settings = Settings(workspace=workspace)
    async with app.open_async(), open_aio(Orchestrator.open(settings)) as pikaci:
        await app.run_worker_async(
            concurrency=4, update_heartbeat_interval=1, additional_context={"pikaci": pikaci}
        )


def main() -> None:
    asyncio.run(work(Path(sys.argv[1])))
