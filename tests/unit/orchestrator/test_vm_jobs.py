"""Jobs in virtual machines, on the fake Incus: what differs from a container's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from orchestrator.fake_incus import Image, daemon, words
from orchestrator.incus import Deadline
from orchestrator.incus.instances import instance_status
from orchestrator.tracing.story import job_story
from orchestrator.tracing.timeline import timeline
from states import events as ev
from states.lifecycle import State
from states.outcome import Outcome
from states.spec import Deadlines, InstanceType, JobSpec
from tests.unit.orchestrator.rig import Rig, open_rig

VM_IMAGE = "pikaci/vm"
JOB = JobSpec(
    command="echo one; sleep 1; echo two",
    image=VM_IMAGE,
    instance_type=InstanceType.VIRTUAL_MACHINE,
    retries=0,
    deadlines=Deadlines(daemon_secs=2),
)


@pytest.fixture(autouse=True)
def vms_boot_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "BOOT_SECS", 0.2)


@asynccontextmanager
async def open_vm_rig(base: Path) -> AsyncIterator[Rig]:
    async with open_rig(base) as rig:
        fingerprint = "b00" * 21 + "b"
        rig.fake.store.project("pikaci").images[fingerprint] = Image(
            fingerprint,
            aliases=[VM_IMAGE],
            type="virtual-machine",
            properties={"pikaci.contract": "1", "requirements.secureboot": "false"},
        )
        yield rig


def log_of(rig: Rig) -> bytes:
    return (rig.context.root.attempt_dir("r.1", 1) / "guest.log").read_bytes()


async def test_a_job_in_a_vm(tmp_path: Path) -> None:
    """The same four calls as in a container, one that listens, and one look more."""
    async with open_vm_rig(tmp_path) as rig:
        job = await rig.live(JOB)
        verbs = [call.argv[1] for call in rig.notes(ev.Called)]
        story = job_story(timeline(rig.entries("r.1")))

    assert (State.RESULT_COLLECTED, Outcome.PASSED) == (job.state, job.outcome)
    assert ["launch", "exec", "monitor", "exec", "exec", "delete"] == (verbs)
    assert () == story.faults  # the first look is none
    assert [["ready"]] == [
        [part.name for part in state.parts if part.name in ("ready", "incus")]
        for state in story.states
        if state.state == State.DEVICES_CONFIGURED
    ]


@pytest.mark.parametrize("said", [words.AGENT_AWAY, "Failed to connect to the agent"])
async def test_an_agent_that_is_away_for_a_while(tmp_path: Path, said: str) -> None:
    """Its job is followed again when it is back, and every byte of the log arrives."""
    async with open_vm_rig(tmp_path) as rig:
        task = await rig.submit(JOB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            while task.job.state is not State.RUNNING:
                await trio.sleep(0.01)
            (name,) = rig.fake.instances()
            rig.fake.fail("exec", with_error=said, times=3)
            rig.fake.stop_agent(name)
            rig.fake.kill_daemon()  # the exec breaks off, as its agent's does
            rig.fake.restart_daemon()
            await trio.sleep(0.5)
            rig.fake.start_agent(name)
        job = rig.journal.job("r.1")
        log = log_of(rig)

    assert (State.RESULT_COLLECTED, Outcome.PASSED) == (job.state, job.outcome)
    assert b"one\ntwo\n" == log.partition(b"\n")[2]


@pytest.mark.parametrize("target", ["pikaci-incus-run", "pikaci-collect"])
async def test_a_connection_to_the_agent_that_is_silent_for_too_long(
    tmp_path: Path, target: str
) -> None:
    """It says nothing of the job, which goes on, as with any connection that breaks."""
    said = "read vsock vm(4294967295):2821592666->vm(1387541628):8443: i/o timeout"
    async with open_vm_rig(tmp_path) as rig:
        rig.fake.break_off(target, secs=0.5, exit_code=255, with_error=said)
        job = await rig.live(JOB)
        errors = [call.error for call in rig.notes(ev.Called) if "vsock" in call.error]
        log = log_of(rig)

    assert (State.RESULT_COLLECTED, Outcome.PASSED, 1) == (job.state, job.outcome, job.attempt)
    assert [f"incus exec failed: {said}"] == errors
    assert b"one\ntwo\n" == log.partition(b"\n")[2]


async def test_an_agent_that_never_comes_back(tmp_path: Path) -> None:
    """The job fails in bounded time, and says what is missing; nothing is left."""
    async with open_vm_rig(tmp_path) as rig:
        task = await rig.submit(JOB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            while task.job.state is not State.RUNNING:
                await trio.sleep(0.01)
            rig.fake.stop_agent(*rig.fake.instances())
            rig.fake.kill_daemon()
            rig.fake.restart_daemon()
        job = rig.journal.job("r.1")

        assert (State.FAILED, {}) == (job.state, rig.fake.instances())
    assert job.failure is not None
    assert f"incus exec failed: {words.AGENT_AWAY}" == job.failure.message.partition("\n")[0]


@pytest.mark.parametrize(
    ("image", "instance_type", "of"),
    [
        ("pikaci/dev", InstanceType.VIRTUAL_MACHINE, "container"),
        (VM_IMAGE, InstanceType.CONTAINER, "virtual-machine"),
    ],
)
async def test_an_image_of_the_other_type(
    tmp_path: Path, image: str, instance_type: InstanceType, of: str
) -> None:
    """It is refused before anything is created, with both types and the way out."""
    spec = JobSpec(command="true", image=image, instance_type=instance_type)
    async with open_vm_rig(tmp_path) as rig:
        job = await rig.live(spec)
        verbs = [call.argv[1] for call in rig.notes(ev.Called)]

        assert [] == rig.notes(ev.LeaseOpened)
    assert [] == verbs
    assert job.failure is not None
    assert (
        f"the image {image} in project pikaci of local is of type {of};"
        f" the job's instance_type is {instance_type}"
    ) == job.failure.message.partition("\n")[0]
    assert f'instance_type = "{of}"' in job.failure.resolution


async def test_a_host_without_vms(tmp_path: Path) -> None:
    """Incus says what is missing, and no attempt more is made."""
    said = (
        'Failed creating instance record: Instance type "virtual-machine" is not supported on'
        " this server: vhost_vsock kernel module not loaded"
    )
    async with open_vm_rig(tmp_path) as rig:
        rig.fake.fail("create", with_error=said, times=9)
        job = await rig.live(JOB)

    assert (State.FAILED, 1) == (job.state, job.attempt)
    assert job.failure is not None
    assert f"incus launch failed: {said}" == job.failure.message.partition("\n")[0]
    assert "docs/vm.md" in job.failure.resolution


async def test_ready_is_running(tmp_path: Path) -> None:
    """A guest that announced itself has another status in Incus, and none for us."""
    async with open_vm_rig(tmp_path) as rig:
        task = await rig.submit(JOB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            while task.job.state is not State.RUNNING:
                await trio.sleep(0.01)
            (name,) = rig.fake.instances()
            shown = rig.fake.instances()[name].shown_status
            status = await instance_status(rig.context.incus, name, deadline=Deadline(9))

    assert ("Ready", "Running") == (shown, status)
