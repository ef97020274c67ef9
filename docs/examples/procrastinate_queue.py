"""Procrastinate, a queue in PostgreSQL, runs a pikaci job for each of its own: once.

The queue delivers a job again when its worker died. With a key, that is the same run of pikaci.
libpq's variables, such as PGHOST, say which database.

export PYTHONPATH=docs/examples PROCRASTINATE_APP=procrastinate_queue.app
procrastinate schema --apply
procrastinate defer procrastinate_queue.check '{"command": "make check"}'
python -c 'from procrastinate_queue import main; main()' WORKSPACE    # a worker, beside others
"""

import asyncio
import sys
from pathlib import Path

from procrastinate import App, JobContext, PsycopgConnector

from orchestrator import JobSpec, Orchestrator, Settings, Verdict
from orchestrator.aio import open as open_aio

# A worker that has said nothing for so long is dead, and its jobs are for another.
DEAD_SECS = 5

app = App(connector=PsycopgConnector())


@app.task(name="procrastinate_queue.check", pass_context=True)
async def check(context: JobContext, command: str) -> None:
    portal, orchestrator = context.additional_context["pikaci"]
    spec = JobSpec(command=command, memory="512MiB", cpus=1)
    # The id is the queue's for this job, however often it is delivered.
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
