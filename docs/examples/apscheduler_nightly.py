"""APScheduler, a scheduler with threads, runs a pikaci job at set times.

python docs/examples/apscheduler_nightly.py WORKSPACE [RUNS]
"""

import signal
import sys
from pathlib import Path
from threading import Semaphore

from apscheduler.schedulers.background import BackgroundScheduler

from orchestrator import JobSpec, Orchestrator, Settings, Verdict
from orchestrator.blocking import Portal, open_sync

SPEC = JobSpec(command="ls && echo nightly", memory="512MiB", cpus=1)


def nightly(portal: Portal, orchestrator: Orchestrator, ended: Semaphore) -> None:
    """Called by APScheduler, in its own thread."""
    try:
        job = portal.call(orchestrator.submit_and_wait, SPEC)
        print(f"{job.id}: {job.verdict}", flush=True)
        if job.verdict is not Verdict.PASSED and job.failure is not None:
            print(f"  {job.failure.message}", flush=True)
    finally:
        ended.release()


def main(workspace: Path, runs: int) -> None:
    # If an exception leaves the block, the jobs are cancelled first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ended = Semaphore(0)
    with open_sync(Orchestrator.open(Settings(workspace=workspace))) as (portal, orchestrator):
        scheduler = BackgroundScheduler()
        # For every night: trigger="cron", hour=3. This example runs it every second.
        scheduler.add_job(
            nightly, trigger="interval", args=(portal, orchestrator, ended), seconds=1
        )
        scheduler.start()
        try:
            for _ in range(runs):
                ended.acquire()
        finally:
            scheduler.shutdown(wait=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
