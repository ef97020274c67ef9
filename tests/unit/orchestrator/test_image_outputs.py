"""Guests that become images of other jobs, on the fake Incus."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from orchestrator import JobSpec, Orchestrator, Verdict
from orchestrator.contract import contract
from orchestrator.fake_incus import FakeIncus
from orchestrator.fake_incus.commands import COMMANDS
from orchestrator.fake_incus.daemon import Call, Daemon
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.fake_incus.model import Image
from orchestrator.testing import open_fake
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.spec import OutputOf
from tests.unit.orchestrator.test_job_outputs import reasons, run

MADE = JobSpec(command="install", output="image", sources=())
USE = JobSpec(command="use", image=OutputOf("toolchain"))
TOOL = "/usr/local/bin/tool"
BOTH = {"toolchain": MADE, "use": USE}

ran: list[str] = []


async def script(command: GuestCommand) -> GuestOutcome:
    """`install` leaves a tool and traces, `use` shows them."""
    ran.append(command.text)
    match command.text:
        case "install":
            command.print(b"installing\n")
            for path in (TOOL, "/artifacts/mine", "/cargo-target/mine", "/var/log/mine"):
                command.write(path, b"mine")
        case "add":
            command.write("/usr/local/bin/second", command.read(TOOL))
        case "use":
            command.print(command.read(TOOL))
            for path in ("/artifacts/mine", "/cargo-target/mine", "/var/log/mine"):
                with pytest.raises(FileNotFoundError):
                    command.read(path)
        case "break":
            command.write(contract().runner, b"something else")
        case "fill":
            command.write("/data", bytes(2 << 20))
    return GuestOutcome()


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    return place


def made(fake: FakeIncus) -> list[Image]:
    """The images that are outputs."""
    images = fake.store.projects["pikaci"].images.values()
    return [image for image in images if "pikaci.output.key" in image.properties]


async def nothing_left(fake: FakeIncus) -> None:
    """Return when all guests are deleted; a job's verdict is there before that."""
    with trio.fail_after(10):
        while fake.instances():
            await trio.sleep(0.01)


async def log(orchestrator: Orchestrator, job: Job) -> bytes:
    return b"".join([part async for part in orchestrator.job(job.id).log()])


async def test_a_guest_is_published_once_and_used_by_others(workspace: Path) -> None:
    """What it was given is there; what was its job's own is not, nor its devices or tags."""
    async with open_fake(guest_script=script) as (orchestrator, fake):
        first = await run(orchestrator, workspace, BOTH)
        again = await run(orchestrator, workspace, BOTH)
        logs = [await log(orchestrator, one["use"]) for one in (first, again)]
        (image,) = made(fake)

        await nothing_left(fake)
    assert [Verdict.PASSED] * 4 == [job.verdict for one in (first, again) for job in one.values()]
    assert State.REUSED is again["toolchain"].state
    assert ["install", "use", "use"] == ran
    assert [b"mine", b"mine"] == [one.split(b"\n")[-1] for one in logs]
    output = first["toolchain"].output
    assert output is not None
    assert {
        "pikaci.contract": "1",
        "pikaci.contract.minor": "4",
        "pikaci.output.key": output.key,
        "pikaci.output.job": first["toolchain"].id,
        "pikaci.output.name": "toolchain",
    }.items() <= image.properties.items()
    assert output.fingerprint == image.fingerprint
    used = first["use"].image
    assert used is not None
    assert ("toolchain (output)", image.fingerprint) == (used.alias, used.fingerprint)


async def test_an_image_can_be_made_from_another(workspace: Path) -> None:
    """The second has what the first has; and is made again only with it."""
    second = msgspec.structs.replace(MADE, command="add", image=OutputOf("toolchain"))
    use = msgspec.structs.replace(USE, image=OutputOf("second"))
    specs = {"toolchain": MADE, "second": second, "use": use}
    async with open_fake(guest_script=script) as (orchestrator, fake):
        jobs = await run(orchestrator, workspace, specs)
        await run(orchestrator, workspace, specs)

        assert 2 == len(made(fake))
    assert all(job.verdict is Verdict.PASSED for job in jobs.values())
    assert ["install", "add", "use", "use"] == ran


async def test_a_deleted_image_is_made_anew(workspace: Path) -> None:
    """With the reason."""
    async with open_fake(guest_script=script) as (orchestrator, fake):
        await run(orchestrator, workspace, BOTH)
        (image,) = made(fake)
        del fake.store.projects["pikaci"].images[image.fingerprint]
        orchestrator_images = await run(orchestrator, workspace, BOTH)
        why = reasons(orchestrator, orchestrator_images["toolchain"])

        assert 1 == len(made(fake))
    assert ["install", "use", "install", "use"] == ran
    assert ["the last one's image was deleted"] == why


@pytest.mark.parametrize(
    ("command", "words"),
    [("break", "does not run as the guest contract says"), ("fill", "counting the holes")],
)
async def test_a_guest_that_cannot_be_an_image_makes_its_job_fail(
    workspace: Path, command: str, words: str
) -> None:
    """It is the job's own fault; no image is left, and who needs it is skipped."""
    bad = msgspec.structs.replace(MADE, command=command, disk="1MiB")
    async with open_fake(guest_script=script) as (orchestrator, fake):
        jobs = await run(orchestrator, workspace, {"toolchain": bad, "use": USE})

        assert [] == made(fake)
        await nothing_left(fake)
    assert (Verdict.FAILED, Verdict.SKIPPED) == (jobs["toolchain"].verdict, jobs["use"].verdict)
    assert words in jobs["toolchain"].message


async def test_a_guest_that_is_over_its_quota_is_stopped_and_deleted(workspace: Path) -> None:
    """Incus stops it, but says that it could not: the next call does the rest."""
    full = "Failed clearing ownership: chown /var/lib/incus/containers/x: disk quota exceeded"
    async with open_fake(guest_script=script) as (orchestrator, fake):
        fake.fail("stop", with_error=full, carried_out=True)
        fake.fail("delete", with_error=f"Stopping the instance failed: {full}")
        jobs = await run(orchestrator, workspace, BOTH)

        await nothing_left(fake)
    assert [Verdict.PASSED, Verdict.PASSED] == [job.verdict for job in jobs.values()]
    assert not any("reap" in warning for job in jobs.values() for warning in job.warnings)


@pytest.mark.parametrize("target", ["pikaci-clean", "stop", "publish", "create"])
async def test_a_daemon_that_restarts_meanwhile_is_waited_for(workspace: Path, target: str) -> None:
    """Whatever was cut off, carried out or not: the job goes on where it was."""
    async with open_fake(guest_script=script) as (orchestrator, fake):

        def cut_off(entry: ev.Entry) -> None:
            if isinstance(entry, ev.Publishing):
                fake.break_off(target, secs=0.01)

        orchestrator.journal.observe(cut_off)
        jobs = await run(orchestrator, workspace, BOTH)

        await nothing_left(fake)
        entries = orchestrator.journal.entries(jobs["toolchain"].id)
        assert any(isinstance(entry, ev.Called) and entry.error for _, entry in entries)
    assert [Verdict.PASSED, Verdict.PASSED] == [job.verdict for job in jobs.values()]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_guest_that_is_started_late_is_made_new_again(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Incus may start it for a process that has died, when it was stopped for its image already."""
    publish = COMMANDS["publish"]
    late: list[str] = []

    async def start_first(daemon: Daemon, call: Call) -> int:
        if len(late) < times:
            (name,) = (name for name in daemon.store.projects["pikaci"].instances)
            late.append(name)
            instance = daemon.store.instance("pikaci", name)
            daemon.start(instance)
            instance.files["/var/log/mine"] = b"booted"
        return await publish(daemon, call)

    monkeypatch.setitem(COMMANDS, "publish", start_first)
    one_try = msgspec.structs.replace(MADE, retries=0)
    async with open_fake(guest_script=script) as (orchestrator, fake):
        jobs = await run(orchestrator, workspace, {**BOTH, "toolchain": one_try})

        images = made(fake)
        await nothing_left(fake)
    if times == 1:
        assert [Verdict.PASSED, Verdict.PASSED] == [job.verdict for job in jobs.values()]
        assert [TOOL] == [path for path in images[0].files if path.endswith(("tool", "mine"))]
    else:
        assert (Verdict.INFRASTRUCTURE, Verdict.SKIPPED) == (
            jobs["toolchain"].verdict,
            jobs["use"].verdict,
        )
        assert [] == images
        failure = jobs["toolchain"].failure
        assert failure is not None
        assert "currently running" in failure.message
    assert times == len(late)


async def test_a_guest_that_is_started_while_it_is_deleted_is_deleted(workspace: Path) -> None:
    """Incus stops it, and then refuses: the next call does both."""
    async with open_fake(guest_script=script) as (orchestrator, fake):
        fake.fail("delete", with_error="Instance is running", times=2)
        jobs = await run(orchestrator, workspace, BOTH)

        await nothing_left(fake)
    assert [Verdict.PASSED, Verdict.PASSED] == [job.verdict for job in jobs.values()]
    assert not any("reap" in warning for job in jobs.values() for warning in job.warnings)
