"""The daemon is killed, frozen and gone under running jobs: a private one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest
import trio

from orchestrator.journal import open_journal
from states import events as ev
from states.outcome import Outcome
from states.spec import Deadlines, JobSpec, Mount
from tests.integration.egress_servers import HERE, Web, server
from tests.integration.private_daemon import PrivateDaemon
from tests.integration.running import Runs, artifact, infrastructure, log_of, output_of

pytestmark = pytest.mark.incus

# Several tries of every call; half a minute holds as well, and takes that long.
AWAY_SECS = 4
COUNT = (
    "n=0; until [ -e /mnt/gate/open ]; do echo $n; n=$((n + 1)); sleep 0.05; done;"
    " echo $n > /artifacts/count"
)

Fault = Callable[[PrivateDaemon], Awaitable[None]]


async def killed(daemon: PrivateDaemon) -> None:
    await trio.to_thread.run_sync(daemon.signal, signal.SIGKILL)
    await trio.to_thread.run_sync(daemon.start)


async def away(daemon: PrivateDaemon) -> None:
    await trio.to_thread.run_sync(daemon.signal, signal.SIGKILL)
    await trio.sleep(AWAY_SECS)
    await trio.to_thread.run_sync(daemon.start)


async def stopped(daemon: PrivateDaemon) -> None:
    daemon.signal(signal.SIGSTOP)
    await trio.sleep(AWAY_SECS)
    daemon.signal(signal.SIGCONT)


@pytest.mark.parametrize(("fault", "jobs"), [(killed, 4), (away, 3), (stopped, 3)])
async def test_jobs_do_not_notice(
    daemon: PrivateDaemon, runs: Runs, tmp_path: Path, fault: Fault, jobs: int
) -> None:
    """Every job passes, and its log has each line once; some were printed while it was away."""
    gate = tmp_path / "gate"
    gate.mkdir()
    spec = JobSpec(
        command=COUNT,
        artifacts=("count",),
        mounts=(Mount(source=str(gate), path="/mnt/gate"),),
        disk="2GiB",  # the daemon's pool is small
    )
    running = 0

    async def when_all_run(entry: ev.Entry) -> None:
        nonlocal running
        running += 1
        if running == jobs:
            try:
                await fault(daemon)
            finally:
                (gate / "open").touch()

    done = await runs.run(
        {f"job-{number}": spec for number in range(jobs)}, on_running=when_all_run, parallel=jobs
    )

    for job in done.values():
        assert (Outcome.PASSED, ()) == (job.outcome, job.warnings), job.failure
        count = int(artifact(job, "count"))
        assert "".join(f"{n}\n" for n in range(count)).encode() == output_of(job)
    assert [] == daemon.instances()


@pytest.mark.parametrize("fault", [killed, away, stopped])
async def test_a_way_out_is_restored(
    daemon: PrivateDaemon, runs: Runs, tmp_path: Path, fault: Fault
) -> None:
    """A request that is made while the daemon is away waits for it."""
    gate = tmp_path / "gate"
    gate.mkdir()
    with server(Web, http=True) as port:
        url = f"http://{HERE}:{port}/"
        command = f"""
until [ -e /mnt/gate/open ]; do sleep 0.05; done
for n in 1 2 3; do curl --noproxy '' -sS -o /dev/null -w '%{{http_code}}\n' {url}; done
"""
        spec = JobSpec(
            command=command,
            egress=(f"{HERE}:{port}",),
            mounts=(Mount(source=str(gate), path="/mnt/gate"),),
        )

        async def when_it_runs(entry: ev.Entry) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fault, daemon)
                await trio.sleep(AWAY_SECS / 2)
                (gate / "open").touch()

        job = await runs.run_one(spec, on_running=when_it_runs)

    assert Outcome.PASSED is job.outcome, job.failure
    assert b"200\n" * 3 == output_of(job)
    assert [] == daemon.instances()


async def test_a_daemon_that_is_killed_while_it_deletes_a_guest_by_itself(
    daemon: PrivateDaemon, runs: Runs
) -> None:
    """The job has its verdict; the next start finds out what became of the guest, and ends it."""
    runs.waits_for_delete = False

    job = await runs.run_one(JobSpec(command="echo one"), settled=False)
    with open_journal(runs.root.journal) as journal:
        left = [lease.job for lease in journal.open_leases()]
    await killed(daemon)
    await runs.recover()

    assert Outcome.PASSED is job.outcome, job.failure
    assert [job.id] == left
    assert [] == daemon.instances()


async def test_a_daemon_that_stays_away_is_infrastructure(
    daemon: PrivateDaemon, runs: Runs
) -> None:
    """The log so far is on the host; the guest is gone as soon as a daemon is there again."""

    async def kill(entry: ev.Entry) -> None:
        await runs.logged(entry.job, b"first\n")
        daemon.signal(signal.SIGKILL)

    spec = JobSpec(command="echo first; sleep 600", deadlines=Deadlines(daemon_secs=1))
    try:
        job = await runs.run_one(spec, on_running=kill, settled=False)
    finally:
        daemon.start()
    left = daemon.instances()
    await runs.recover()

    assert infrastructure(job, "daemon doesn't appear to be started")
    assert b"first\n" == output_of(job)
    assert [job.instance] == left
    assert [] == daemon.instances()


@pytest.fixture
def full(daemon: PrivateDaemon) -> Iterator[Callable[[], None]]:
    """Fills the daemon's pool to its last byte, when called."""
    filling = daemon.pool / "filling"

    def fill() -> None:
        # What earlier tests deleted is freed in the background, which starts at the next commit:
        # one every half a minute, if nobody asks for it.
        for words in (("filesystem", "sync"), ("subvolume", "sync")):
            subprocess.run(["btrfs", *words, daemon.pool], check=True, timeout=60)
        with filling.open("wb", buffering=0) as file:
            _reserve(file)
            with pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(1 << 20))

    yield fill
    filling.unlink(missing_ok=True)


def _reserve(file: FileIO) -> None:
    """Take what is left but a few MiB, without writing gigabytes; the file ends behind it."""
    taken, step = 0, 1 << 30
    while step >= 1 << 20:
        try:
            os.posix_fallocate(file.fileno(), taken, step)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            step //= 2
        else:
            taken += step
    file.seek(taken)


async def test_a_full_pool_under_a_job_is_named(
    daemon: PrivateDaemon, runs: Runs, full: Callable[[], None]
) -> None:
    """Not the guest's own limit: the command fails, with what Incus saw; its verdict arrives."""

    async def fill(entry: ev.Entry) -> None:
        await runs.logged(entry.job, b"first\n")
        await trio.to_thread.run_sync(full)

    spec = JobSpec(
        command="echo first; while head -c 1M /dev/urandom >> /artifacts/big; do :; done; exit 6"
    )

    job = await runs.run_one(spec, on_running=fill)

    assert (Outcome.FAILED, 6) == (job.outcome, job.exit_code), job.failure
    assert "the storage pool pikaci is full" in job.hint
    assert b"first\n" in log_of(job)


async def test_a_job_that_finds_the_pool_full_is_told_so(
    daemon: PrivateDaemon, runs: Runs, full: Callable[[], None]
) -> None:
    """Whether Incus refuses the instance or starts it on the last bytes, the pool is named."""
    full()

    job = await runs.run_one(
        JobSpec(command="head -c 100M /dev/urandom > /artifacts/x", retries=0), settled=False
    )

    assert Outcome.PASSED != job.outcome
    assert job.failure is not None
    assert "the storage pool" in job.hint + job.failure.message
