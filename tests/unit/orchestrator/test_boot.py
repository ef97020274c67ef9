"""From `start` to a guest that is ready: of a container, and of a VM whose agent comes late."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator.attempt import boot as boot_module
from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import LOOK_AGAIN_SECS, NotReady, boot, start_again
from orchestrator.attempt.plan import Plan, make_plan
from orchestrator.fake_incus import FakeIncus, Image, words
from orchestrator.fake_incus.daemon import BOOT_SECS
from orchestrator.host_paths import file_system_of
from orchestrator.incus import Call, Completed, Incus
from orchestrator.incus.errors import MappingUnsupported
from states.spec import Deadlines, InstanceType, JobSpec
from tests.samples import sample_remote_context, sample_shell_job

VM_FINGERPRINT = "b00" * 21 + "b"


class Host:
    """A fake daemon that has a VM image, and a plan whose instance is started in it."""

    def __init__(self, fake: FakeIncus, base: Path) -> None:
        self.fake = fake
        self.calls: list[Call] = []
        self.incus = Incus(base / "conf", spawn=fake, observe=self.calls.append)
        self.snapshot = base / "snapshot"
        self.snapshot.mkdir()
        fake.store.project("pikaci").images[VM_FINGERPRINT] = Image(
            VM_FINGERPRINT, type="virtual-machine", properties={"requirements.secureboot": "false"}
        )

    def plan(self, instance_type: InstanceType, **deadlines: int) -> Plan:
        spec = sample_shell_job(instance_type=instance_type, deadlines=Deadlines(**deadlines))
        vm = instance_type is InstanceType.VIRTUAL_MACHINE
        fingerprint = VM_FINGERPRINT if vm else "fa4e" * 16
        context = sample_remote_context(snapshot=str(self.snapshot), fingerprint=fingerprint)
        return make_plan(spec, context)

    async def started(self, instance_type: InstanceType, **deadlines: int) -> Plan:
        plan = self.plan(instance_type, **deadlines)
        await self.incus.perform(commands.create(plan))
        self.calls.clear()
        return plan

    def verbs(self) -> list[str]:
        return [call.argv[1] for call in self.calls]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with FakeIncus.open() as fake:
        yield Host(fake, tmp_path)


VM = InstanceType.VIRTUAL_MACHINE


async def test_a_container_costs_one_call(host: Host, autojump_clock: MockClock) -> None:
    """It is looked into; nobody listens."""
    plan = await host.started(InstanceType.CONTAINER)

    await boot(host.incus, plan)

    assert ["exec"] == host.verbs()


async def test_a_vm_is_ready_when_it_says_so(host: Host, autojump_clock: MockClock) -> None:
    """Its announcement is waited for, with no call meanwhile, and then it is looked into."""
    plan = await host.started(VM)
    began = trio.current_time()

    await boot(host.incus, plan)

    assert BOOT_SECS == pytest.approx(trio.current_time() - began)
    assert ["exec", "exec", "monitor"] == host.verbs()
    assert "Ready" == host.fake.instances()[plan.instance].shown_status


async def test_a_vm_that_announces_nothing(host: Host, autojump_clock: MockClock) -> None:
    """Its agent is looked for as often as Incus does: the announcement is no condition."""
    plan = await host.started(VM)
    host.fake.hang("monitor")
    began = trio.current_time()

    await boot(host.incus, plan)

    assert LOOK_AGAIN_SECS == pytest.approx(trio.current_time() - began)


async def test_another_guests_announcement(host: Host, autojump_clock: MockClock) -> None:
    """It is no reason to look."""
    plan = await host.started(VM)
    heard = boot_module._Announced(plan.instance)
    for name in ("other", plan.instance):
        began = trio.current_time()
        event = {"metadata": {"action": "instance-ready", "name": name}}
        line = msgspec.json.encode(event) + b"\n\n"
        await heard.feed(line[:9])  # lines come in parts
        await heard.feed(line[9:])
        await heard.wait(3)

        assert (3 if name == "other" else 0) == pytest.approx(trio.current_time() - began)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"metadata": 3}', b"\xff\xfe"])
async def test_what_is_no_event(host: Host, autojump_clock: MockClock, line: bytes) -> None:
    """The monitor's lines are read with care: what is none of ours is passed over."""
    heard = boot_module._Announced("x")
    event = b'{"metadata": {"action": "instance-ready", "name": "x"}}'

    await heard.feed(line + b"\n" + event + b"\n")
    began = trio.current_time()
    await heard.wait(3)

    assert began == trio.current_time()


async def test_a_vm_whose_agent_never_comes(host: Host, autojump_clock: MockClock) -> None:
    """At the deadline of the start the job fails, and is told which setting that is."""
    plan = await host.started(VM, start_secs=3)
    began = trio.current_time()

    with pytest.raises(NotReady) as error:
        await boot(host.incus, plan)

    assert 3 == pytest.approx(trio.current_time() - began)
    assert "the VM's agent did not answer within 3 s" == error.value.brief
    assert "deadlines.start_secs" in error.value.resolution
    assert words.AGENT_AWAY in error.value.details


async def test_a_vm_whose_mount_never_comes(host: Host, autojump_clock: MockClock) -> None:
    """An agent that answers is not enough: the guest is looked into, as a container is."""
    plan = await host.started(VM, ready_secs=7)
    host.fake.never_ready()

    with pytest.raises(NotReady) as error:
        await boot(host.incus, plan)

    assert "the guest was not ready within 7 s: the mount /workspace/snapshot is missing in it" == (
        error.value.brief
    )


async def test_a_guest_s_end_of_a_way_out_that_does_not_start(
    host: Host, autojump_clock: MockClock
) -> None:
    """Its last line says why, and the command that helps is named; the traceback is no message."""
    plan = await host.started(VM, ready_secs=7)
    trace = "the way out\nTraceback (most recent call last):\n  File x\nValueError: 'listen'"
    host.fake.never_ready(missing=trace)

    with pytest.raises(NotReady) as error:
        await boot(host.incus, plan)

    assert "the guest's part of the proxy does not start: ValueError: 'listen'" == (
        error.value.brief
    )
    assert "" == error.value.details
    assert "`pikaci image build` rebuilds pikaci/dev" in error.value.resolution


async def test_the_daemon_goes_while_a_vm_boots(host: Host, autojump_clock: MockClock) -> None:
    """What was announced to nobody is no loss: there is a look when the daemon is back."""
    plan = await host.started(VM)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(boot, host.incus, plan)
        await trio.sleep(1)
        host.fake.kill_daemon()
        await trio.sleep(BOOT_SECS)  # the guest says that it is ready, to nobody
        began = trio.current_time()
        host.fake.restart_daemon()

    assert trio.current_time() - began < LOOK_AGAIN_SECS


async def test_a_guest_that_was_left_stopped_is_started(host: Host) -> None:
    """And one that runs is left alone."""
    plan = await host.started(InstanceType.CONTAINER)
    host.fake.stop_guest(plan.instance)

    for _ in range(2):
        await start_again(host.incus, plan)
        assert "Running" == host.fake.instances()[plan.instance].status


async def test_a_vm_that_a_dead_process_started(host: Host, autojump_clock: MockClock) -> None:
    """It may have announced itself long ago: it is looked into at once."""
    plan = await host.started(VM)
    await trio.sleep(2 * BOOT_SECS)
    began = trio.current_time()

    await boot(host.incus, plan)

    assert began == trio.current_time()


async def test_cancelled_while_a_vm_boots(host: Host, autojump_clock: MockClock) -> None:
    """The wait ends at once, and nobody listens any more."""
    plan = await host.started(VM)

    with trio.move_on_after(1) as scope:
        await boot(host.incus, plan)

    assert scope.cancelled_caught
    assert "monitor" == host.verbs()[-1]


async def test_a_signed_image_is_not_asked_for(host: Host, autojump_clock: MockClock) -> None:
    """Incus refuses to start an image that nobody signed, but for the plan's secure boot off."""
    plan = host.plan(VM)
    del plan.config["security.secureboot"]

    with pytest.raises(Exception, match="incompatible with secureboot"):
        await host.incus.perform(commands.create(plan))


def test_the_dry_run_shows_the_listening_too() -> None:
    """What is printed of a VM's job is what runs: the monitor is a command of it."""
    from orchestrator.cli.dry_run import _planned, _shown

    for instance_type, count in ((InstanceType.CONTAINER, 0), (VM, 1)):
        spec = JobSpec(command="true", instance_type=instance_type)
        plan = make_plan(spec, sample_remote_context())
        shown = _shown(_planned("job", plan))
        line = shlex.join(
            ["incus", "monitor", "--project", "pikaci", *commands.monitor(plan).args[1:]]
        )

        assert count == shown.splitlines().count(line)


async def test_a_guest_that_begins_without_programs(host: Host, autojump_clock: MockClock) -> None:
    """One of NixOS has not even a shell at first: it is asked again until its deadline."""
    plan = await host.started(InstanceType.CONTAINER, ready_secs=7)
    asked = 0

    async def spawn(argv: Sequence[str], **options: Any) -> Completed:
        nonlocal asked
        if argv[1] != "exec" or asked >= times:
            return await host.fake(argv, **options)
        asked += 1
        return Completed(tuple(argv), 127, b"", b"Error: Command not found\n")

    incus = Incus(host.incus.conf, spawn=spawn)
    times = 3
    await boot(incus, plan)

    assert 3 == asked
    times, began = 10_000, trio.current_time()
    with pytest.raises(NotReady, match="within 7 s: a shell with mountpoint is missing"):
        await boot(incus, plan)
    assert 7 == pytest.approx(trio.current_time() - began, abs=boot_module.BOOTED_AGAIN_SECS)


@pytest.mark.parametrize(
    ("device", "named", "next_step"),
    [
        ("pikaci-snapshot", "snapshot cannot be mounted into a container", "name a state root on"),
        ("pikaci-other", "pikaci-other cannot be mounted into a container", "use a directory on"),
    ],
)
async def test_a_directory_that_cannot_be_mapped_is_named(
    host: Host, device: str, named: str, next_step: str
) -> None:
    """Incus names the device only, and not what is wrong with its directory."""
    text = (
        f'Error: Failed to setup device mount "{device}": idmapping abilities are required but'
        " aren't supported on system"
    )
    plan = await host.started(InstanceType.CONTAINER)
    host.fake.fail("start", with_error=text.removeprefix("Error: "))

    with pytest.raises(MappingUnsupported) as failed:
        await start_again(host.incus, plan)

    assert named in failed.value.brief
    assert next_step in failed.value.resolution
    assert text in failed.value.details
    if device == "pikaci-snapshot":
        assert f"({file_system_of(str(host.snapshot))})" in failed.value.brief
