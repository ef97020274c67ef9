"""The queue of docs/examples, with a real PostgreSQL and workers that are killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.journal import open_journal
from orchestrator.state_root import default_state_root
from states import events as ev
from states.outcome import Verdict
from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until

pytestmark = [pytest.mark.incus, pytest.mark.examples]

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "docs" / "examples"
QUEUE = PROJECT / "build" / "procrastinate" / "bin"
EXAMPLE = EXAMPLES / "procrastinate_queue.py"
SPEC = "JobSpec(command=command, "
WORKER = "from procrastinate_queue import main; main()"
OWNER = "postgres"  # the user that Debian's package makes; the server refuses to run as root


class Queue:
    """A database of its own, and the programs of the example with their environment."""

    def __init__(self, base: Path, pikaci: Command) -> None:
        self._data = base / "data"
        self._log = base / "worker.log"
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self._workspace = pikaci.workspace
        state = pikaci.root.parent / "state"
        pikaci.root = state / "pikaci" / default_state_root(pikaci.workspace).name
        self._env = {
            **pikaci.env,
            "XDG_STATE_HOME": str(state),
            "PGHOST": str(base),
            "PGUSER": OWNER,
            "PGDATABASE": "postgres",
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(EXAMPLES)]),
            "PROCRASTINATE_APP": "procrastinate_queue.app",
        }
        self._base = base
        self._workers: list[subprocess.Popen[str]] = []

    def _as_owner(self, program: str, *words: str) -> None:
        argv = [str(self._programs / program), "-D", str(self._data), *words]
        if os.geteuid() == 0:
            argv = ["runuser", "-u", OWNER, "--", *argv]
        subprocess.run(argv, check=True, cwd=self._base, stdout=subprocess.DEVNULL, timeout=SECS)

    def start(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._base, OWNER)
        self._as_owner("initdb", "--username", OWNER, "--auth=trust", "--no-sync")
        options = f"-k {self._base} -c listen_addresses="
        log = str(self._base / "server.log")
        self._as_owner("pg_ctl", "--wait", "-o", options, "-l", log, "start")

    def stop(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate(timeout=SECS)
        self._as_owner("pg_ctl", "--wait", "-m", "immediate", "stop")

    def call(self, *words: str) -> str:
        """What a command of the queue prints."""
        argv = [str(QUEUE / "procrastinate"), *words]
        return self._printed(argv)

    def ask(self, query: str) -> str:
        """The only value that the query gives."""
        return self._printed([str(self._programs / "psql"), "-tAc", query]).strip()

    def _printed(self, argv: list[str]) -> str:
        done = subprocess.run(
            argv, env=self._env, check=True, capture_output=True, text=True, timeout=SECS
        )
        return done.stdout

    def change_job(self, keys: str) -> None:
        """Give the example's job more keys."""
        text = EXAMPLE.read_text()
        assert 1 == text.count(SPEC)
        (self._base / EXAMPLE.name).write_text(text.replace(SPEC, f"{SPEC}{keys}, "))
        self._env["PYTHONPATH"] = os.pathsep.join([str(PROJECT), str(self._base)])

    def defer(self, command: str) -> str:
        """Submit a job to the queue; its id there."""
        self.call("defer", "procrastinate_queue.check", json.dumps({"command": command}))
        return self.ask("SELECT max(id) FROM procrastinate_jobs WHERE task_name LIKE '%check'")

    def status(self, job: str) -> str:
        return self.ask(f"SELECT status FROM procrastinate_jobs WHERE id = {job}")

    def run(self, command: str, **env: str) -> tuple[str, str]:
        """A job's end in the queue, and what the worker printed of it."""
        job = self.defer(command)
        worker = self.worker(**env)
        wait_until(lambda: self.status(job) not in ("todo", "doing"))
        worker.terminate()
        told, _ = worker.communicate(timeout=SECS)
        return self.status(job), told

    def log(self) -> str:
        return self._log.read_text()

    def worker(self, **env: str) -> subprocess.Popen[str]:
        argv = [str(QUEUE / "python"), "-c", WORKER, str(self._workspace)]
        with self._log.open("a") as log:
            begun = subprocess.Popen(
                argv, env={**self._env, **env}, text=True, stdout=subprocess.PIPE, stderr=log
            )
        self._workers.append(begun)
        return begun


@pytest.fixture
def queue(pikaci: Command) -> Iterator[Queue]:
    # Not in pytest's directory, which only its own user may enter.
    base = Path(tempfile.mkdtemp(prefix="pikaci-queue-"))
    made = Queue(base, pikaci)
    try:
        made.start()
        try:
            made.call("schema", "--apply")
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(base)


def test_a_job_whose_worker_was_killed_is_delivered_again_and_runs_once(
    queue: Queue, pikaci: Command
) -> None:
    """The second worker gets the run of the first, in its guest, and its verdict."""
    job_there = queue.defer(f"echo begun; {AT_THE_GATE}; echo ended")
    first = queue.worker()
    wait_until(lambda: b"begun" in pikaci.log_lines())
    first.kill()
    first.communicate(timeout=SECS)
    guests = pikaci.leases()
    second = queue.worker()
    deliveries = (
        "SELECT count(*) FROM procrastinate_events JOIN procrastinate_jobs jobs"
        " ON jobs.id = job_id WHERE task_name LIKE '%check' AND type = 'started'"
    )
    wait_until(lambda: queue.ask(deliveries) == "2")
    here = pikaci.leases()
    pikaci.open_gate()
    wait_until(lambda: queue.status(job_there) == "succeeded")
    second.terminate()
    told, _ = second.communicate(timeout=SECS)

    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        rows = list(journal.jobs())
        (job,) = map(journal.look, rows)
        ended = [
            entry for _, entry in journal.entries(job.id) if isinstance(entry, ev.ResultCollected)
        ]
    assert Verdict.PASSED == job.verdict
    assert f"{job.id}: passed\n" == told
    assert 1 == len(ended)
    assert 1 == len(guests)
    assert guests == here
    assert [b"begun", b"ended"] == pikaci.log_lines()[:2]
    assert [] == pikaci.leases()


def test_a_job_that_does_not_pass_has_failed_in_the_queue(queue: Queue, pikaci: Command) -> None:
    """With its verdict in what the worker prints; without an Incus, the worker's log has the error."""
    failed = queue.run("exit 7")
    fault = queue.run("true", INCUS_SOCKET="/nonexistent")
    queue.change_job("timeout_secs=1")
    late = queue.run("sleep 600")

    assert "failed" == failed[0] and failed[1].endswith(": failed\n")
    assert ("failed", "") == fault and "DaemonUnreachable" in queue.log()
    assert "failed" == late[0] and late[1].endswith(": timed_out\n")
    assert [] == pikaci.leases()


def test_a_job_that_the_queue_aborts_is_cancelled(queue: Queue, pikaci: Command) -> None:
    """The worker then runs the next one. A worker that gets TERM waits for its jobs first."""
    job = queue.defer("sleep 600")
    worker = queue.worker()
    wait_until(pikaci.leases)
    queue.ask(f"SELECT procrastinate_cancel_job_v1({job}, true, false)")
    wait_until(lambda: queue.status(job) == "aborted")
    left = pikaci.leases()
    last = queue.defer(f"echo begun; {AT_THE_GATE}")
    wait_until(pikaci.leases)
    worker.terminate()
    wait_until(lambda: pikaci.in_guest("true"))
    pikaci.open_gate()
    told, _ = worker.communicate(timeout=SECS)

    assert [] == left
    assert "succeeded" == queue.status(last)
    assert told.endswith(": passed\n")
    assert [] == pikaci.leases()


def test_the_example_is_short() -> None:
    """Under 60 lines."""
    assert len(EXAMPLE.read_text().splitlines()) < 60
