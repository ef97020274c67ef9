"""Dask's `distributed`: tasks of a local cluster submit jobs, and other tasks use their results.

python docs/examples/dask_matrix.py WORKSPACE
"""

import signal
import sys
from pathlib import Path

from distributed import Client, LocalCluster, Worker, WorkerPlugin, get_worker

from orchestrator import Capacity, Job, JobSpec, Orchestrator, Settings
from orchestrator.blocking import open_sync

VERSIONS = ("3.10", "3.11", "3.12")


class Pikaci(WorkerPlugin):
    """An orchestrator in each worker process. They share one state root."""

    name = "pikaci"

    def __init__(self, workspace: Path) -> None:
        self.settings = Settings(workspace=workspace, capacity=Capacity(jobs=2))

    def setup(self, worker: Worker) -> None:
        self.opened = open_sync(Orchestrator.open(self.settings))
        self.portal, self.orchestrator = self.opened.__enter__()

    def teardown(self, worker: Worker) -> None:
        # As for an exception, the jobs of running tasks are cancelled.
        self.opened.__exit__(SystemExit, SystemExit(), None)


def test(version: str) -> Job:
    pikaci = get_worker().plugins["pikaci"]
    spec = JobSpec(command=f"echo testing with {version}", memory="512MiB", cpus=1)
    job: Job = pikaci.portal.call(pikaci.orchestrator.submit_and_wait, spec)
    return job


def line(version: str, job: Job) -> str:
    return f"{version}: {job.verdict}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Pikaci(Path(sys.argv[1])))
        try:
            tests = client.map(test, VERSIONS, pure=False)
            print(*client.gather(client.map(line, VERSIONS, tests, pure=False)), sep="\n")
        finally:  # before the workers stop: they have four seconds
            client.unregister_worker_plugin(Pikaci.name)
