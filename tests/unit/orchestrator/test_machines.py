"""What is said of a host before a virtual machine needs it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from orchestrator.host.doctor import examine
from orchestrator.host.machines import SUBJECT, machine_needs
from orchestrator.host.row import Row
from orchestrator.host.setup import setup
from orchestrator.incus import Host
from orchestrator.state_root import StateRoot
from tests.unit.orchestrator.fake_host import Host as FakeHost

QEMU = f"usr/bin/qemu-system-{platform.machine()}"
FIRMWARE = "usr/share/edk2"
DEVICES = ("dev/kvm", "dev/vhost-vsock")
COMMANDS = (QEMU, "usr/bin/qemu-img", "usr/bin/chattr", "usr/libexec/virtiofsd")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The files of a machine that lacks nothing."""
    root = tmp_path / "machine"
    for path in DEVICES:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for path in COMMANDS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("#!/bin/sh\n")
        (root / path).chmod(0o755)
    (root / FIRMWARE).mkdir(parents=True)
    return root


async def _rows(host: FakeHost, root: Path, *, wanted: bool, pool: str = "btrfs") -> list[Row]:
    return [row async for row in machine_needs(host.incus, pool, wanted=wanted, root=root)]


async def test_a_host_that_lacks_nothing(host: FakeHost, machine: Path) -> None:
    """One row says so."""
    (row,) = await _rows(host, machine, wanted=True)

    assert ("ok", SUBJECT) == (row.state, row.subject)


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("dev/kvm", "modprobe kvm"),
        ("dev/vhost-vsock", "modprobe vhost_vsock"),
        (QEMU, "apt-get install incus"),
        ("usr/bin/qemu-img", "apt-get install qemu-utils"),
        ("usr/bin/chattr", "apt-get install e2fsprogs"),
        ("usr/libexec/virtiofsd", "apt-get install virtiofsd"),
        (FIRMWARE, "apt-get install "),
    ],
)
@pytest.mark.parametrize("wanted", [False, True])
async def test_each_thing_is_missed(
    host: FakeHost, machine: Path, path: str, remedy: str, wanted: bool
) -> None:
    """By its name, with what to type: a fault where a job needs it, else a warning."""
    thing = machine / path
    thing.rmdir() if thing.is_dir() else thing.unlink()
    (row,) = await _rows(host, machine, wanted=wanted)

    assert ("missing" if wanted else "warning") == row.state
    assert Path(path).name in row.found or "firmware" in row.found
    assert remedy in row.remedy


@pytest.mark.parametrize(
    ("says", "state"),
    [
        ("echo 'spice options:'", "ok"),
        ("echo 'spice options:'; exit 1", "ok"),  # as QEMU 10 does
        ("echo \"qemu: There is no option group 'spice'\" >&2; exit 1", "missing"),
    ],
)
async def test_qemu_says_itself_whether_it_has_spice(
    host: FakeHost, machine: Path, says: str, state: str
) -> None:
    """Of what it lacks, Debian's package is named."""
    (machine / QEMU).write_text(f"#!/bin/sh\n{says}\n")
    (row,) = await _rows(host, machine, wanted=True)

    assert state == row.state
    assert ("qemu-system-modules-spice" in row.remedy) == (state == "missing")


async def test_a_disk_that_is_no_file_on_btrfs_needs_no_chattr(
    host: FakeHost, machine: Path
) -> None:
    """Incus calls it for a file on btrfs alone."""
    (machine / "usr/bin/chattr").unlink()
    (row,) = await _rows(host, machine, wanted=True, pool="dir")

    assert "ok" == row.state


async def test_an_incus_without_machines(host: FakeHost, machine: Path) -> None:
    """Nothing is said where nobody wants one; else its own log says why it makes none."""
    host.fake.store.machine.driver = "lxc"

    assert [] == await _rows(host, machine, wanted=False)
    (row,) = await _rows(host, machine, wanted=True)
    assert ("missing", "Incus cannot make them") == (row.state, row.found)
    (machine / "dev/kvm").unlink()
    (row,) = await _rows(host, machine, wanted=True)
    assert "there is no /dev/kvm" == row.found


async def test_set_up_says_it_too(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a warning: its containers run."""

    def lacking(root: Path, on_btrfs: bool) -> list[tuple[str, str]]:
        return [("there is no chattr" if on_btrfs else "", "apt-get install e2fsprogs")]

    monkeypatch.setattr("orchestrator.host.machines._lacking", lacking)
    steps: list[str] = []
    await setup(host.incus, Host(), say=steps.append, kinds=())

    assert "warning: VMs: there is no chattr: apt-get install e2fsprogs" in steps


async def test_doctor_names_the_image_and_what_builds_it(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a job of the workspace runs in a VM; it may name another image."""
    monkeypatch.setattr("orchestrator.image.disk._PATH", str(tmp_path))
    root = StateRoot(tmp_path / "state")
    rows = [row async for row in examine(host.incus, Host(), root, machines=True)]
    (row,) = [row for row in rows if "pikaci/vm" in row.found]

    assert "warning" == row.state
    assert "mtools" in row.remedy
    assert row.remedy.endswith("pikaci setup --vm")
