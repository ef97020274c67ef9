"""A Debian guest that has systemd: it boots beside its host's calls, and says when it is ready."""

from __future__ import annotations

import os

import msgspec
import pytest
import trio

from orchestrator.host.setup import ensure_image
from orchestrator.image.check import Row, check_image
from orchestrator.image.layer import SYSTEMD
from orchestrator.incus import Deadline, Host, Incus
from orchestrator.incus.instances import instance_status
from orchestrator.settings import open_incus
from states.outcome import Outcome
from states.spec import JobSpec, OutputOf
from tests.calls import call
from tests.integration.running import SLIM, Runs, output_of

# Only one image is built at a time, and workers would wait for each other.
pytestmark = [pytest.mark.incus, pytest.mark.xdist_group("image build")]
NAME = f"test-systemd-{os.getpid()}"


@pytest.fixture
async def incus() -> Incus:
    """The daemon, with the image; the base of it is built once on a machine."""
    daemon = open_incus()
    await ensure_image(daemon, say=print, kind=SYSTEMD)
    return daemon


async def test_the_image_keeps_the_contract(incus: Incus) -> None:
    """Every row."""
    rows: list[Row] = []
    await check_image(incus, Host(), SYSTEMD.alias, tell=rows.append, owner=NAME)

    assert [] == [row for row in rows if not row.kept]
    assert 15 < len(rows)


async def test_a_guest_says_that_it_is_ready(incus: Incus) -> None:
    """Incus tells of it by an event, and shows the guest as Ready; nothing in it has failed."""
    root = {"root": {"type": "disk", "path": "/", "pool": Host().pool}}
    document = msgspec.json.encode({"devices": root, "config": {"user.pikaci.owner": NAME}})
    ready = trio.Event()
    heard = b""

    async def hear(chunk: bytes) -> None:
        nonlocal heard
        heard += chunk
        words = (b'"instance-ready"', NAME.encode())  # of one event: others' guests get ready too
        if any(all(word in line for word in words) for line in heard.splitlines()):
            ready.set()

    async def listen() -> None:
        listened = ("monitor", "--type=lifecycle", "--format=json", "local:")
        await call(incus, *listened, sink=hear, deadline_secs=60)

    image, guest = incus.name(SYSTEMD.alias), incus.name(NAME)
    await call(
        incus, "create", "-q", "--no-profiles", image, guest, stdin=document, deadline_secs=60
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            while not heard:  # an event of our own making says that the monitor listens
                note = ("config", "set", guest, "user.note", str(trio.current_time()))
                await call(incus, *note, deadline_secs=60)
            await call(incus, "start", "-q", guest, deadline_secs=60)
            with trio.fail_after(60):
                await ready.wait()
            listed = await call(incus, "list", NAME, "-f", "csv", "-c", "s", deadline_secs=60)
            status = await instance_status(incus, NAME, deadline=Deadline(60))
            nursery.cancel_scope.cancel()
        wait = ("systemctl", "is-system-running", "--wait")
        state = await call(incus, "exec", "-T", guest, "--", *wait, deadline_secs=60, check=False)
    finally:
        await call(incus, "delete", "-q", "--force", guest, deadline_secs=60)

    assert ("READY\n", "Running") == (listed.stdout.decode(), status)
    assert "running\n" == state.stdout.decode()


async def test_jobs_that_race_its_boot(incus: Incus, runs: Runs) -> None:
    """Right after `start` there is no runner yet: each job waits in its guest, and passes."""
    spec = JobSpec(command="cat hello.txt", image=SYSTEMD.alias, retries=0)

    jobs = await runs.run({f"job-{number}": spec for number in range(6)})

    assert {Outcome.PASSED} == {job.outcome for job in jobs.values()}
    assert {b"hello\n"} == {output_of(job) for job in jobs.values()}


async def test_a_job_that_overruns_in_a_guest_that_said_so(incus: Incus, runs: Runs) -> None:
    """Ready is no other state than Running: its job ends and is told of as any other's."""
    spec = JobSpec(command="sleep 60", timeout_secs=1, image=SYSTEMD.alias, retries=0)

    job = await runs.run_one(spec)

    assert (Outcome.TIMED_OUT, 124) == (job.outcome, job.exit_code)


# Starts a job as Incus's agent does in a VM: below a unit of its own.
BELOW_A_UNIT = """\
systemd-run --quiet --unit=agent --setenv=PATH="$PATH" --property=KillMode="$1" --property=OOMPolicy=continue \\
  sh -c 'printf "PIKACI_INCUS_NONCE=n\\0" | env PIKACI_INCUS_GUEST_COMMAND="sleep 1; echo done" \\
    PIKACI_INCUS_TIMEOUT_SECS=9 PIKACI_INCUS_RUN_AS_ROOT=0 pikaci-incus-run'
until [ -s /var/lib/pikaci-incus-run/guest.log ]; do sleep 0.05; done
systemctl stop agent
pikaci-incus-run follow 0
"""


@pytest.mark.parametrize(("mode", "code"), [("control-group", 125), ("process", 0)])
async def test_a_job_outlives_the_agent_that_started_it(incus: Incus, mode: str, code: int) -> None:
    """Where the agent's unit has KillMode=process, as in our image of a VM; and only there."""
    root = {"root": {"type": "disk", "path": "/", "pool": Host().pool}}
    document = msgspec.json.encode({"devices": root, "config": {"user.pikaci.owner": NAME}})
    image, guest = incus.name(SYSTEMD.alias), incus.name(f"{NAME}-agent")
    await call(
        incus, "create", "-q", "--no-profiles", image, guest, stdin=document, deadline_secs=60
    )
    try:
        await call(incus, "start", "-q", guest, deadline_secs=60)
        path = "export PATH=$PATH:/run/current-system/sw/bin; "
        wait = "until systemctl is-system-running --wait >/dev/null 2>&1; do sleep 0.1; done; "
        script = ("sh", "-c", path + wait + BELOW_A_UNIT, "sh", mode)
        done = await call(incus, "exec", "-T", guest, "--", *script, deadline_secs=60, check=False)
    finally:
        await call(incus, "delete", "-q", "--force", guest, deadline_secs=60)

    assert code == done.exit_code
    assert (code == 0) == (b"\ndone\n" in done.stdout)


@pytest.mark.usefixtures("images")
async def test_its_guest_becomes_an_image_with_a_new_machine_id(incus: Incus, runs: Runs) -> None:
    """And with a journal of its own; each guest from the image has another id."""
    look = "cat /etc/machine-id; ls /var/log/journal"
    slim = SLIM.replace("/usr/share ", "")  # D-Bus has its settings there
    made = JobSpec(
        command=slim + look, image=SYSTEMD.alias, run_as_root=True, output="image", sources=()
    )
    use = JobSpec(command=look, image=OutputOf("made"), run_as_root=True)
    jobs = await runs.run({"made": made, "one": use, "other": use})

    ids = [output_of(jobs[name]).decode().split() for name in ("made", "one", "other")]
    # The id, and the directory of the journal that is called by it.
    assert all(id == journal for id, journal in ids)
    assert 3 == len({id for id, _ in ids})
