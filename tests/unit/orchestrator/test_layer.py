"""What a kind of Debian guest has of ours, as data."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from orchestrator.contract import contract, guest_files
from orchestrator.image.layer import BARE, SYSTEMD, Kind, inputs, lay, tmpfiles
from orchestrator.image.machine import VM
from states.spec import JobSpec


def laid(base: Path, kind: Kind) -> dict[str, tarfile.TarInfo]:
    """The members that stand in the image at last, by name."""
    with tarfile.open(base / "base.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("rootfs/usr"))
    image = lay(base / "base.tar", base / "image.tar", kind, {"os": "Debian"})
    with tarfile.open(image) as archive:
        return {member.name: member for member in archive}


def test_the_default_image_is_the_one_that_jobs_name() -> None:
    """What `pikaci image build` makes is what a job without `image` runs in."""
    assert JobSpec(command="true").image == BARE.alias


def test_tmpfiles_make_what_the_contract_wants() -> None:
    """A rule a directory, parents first, and the paths of the programs."""
    *directories, runner, egress = tmpfiles().splitlines()

    assert [
        f"d {d.path} {d.mode} {d.user} {d.group} -" for d in contract().directories
    ] == directories
    assert f"L+ {contract().runner} - - - - /usr/lib/pikaci/pikaci-incus-run" == runner
    assert f"L+ {contract().egress.program} - - - - /usr/lib/pikaci/pikaci-egress" == egress


@pytest.mark.parametrize("kind", [BARE, SYSTEMD, VM], ids=lambda kind: kind.alias)
def test_scripts_can_be_run_and_are_roots(tmp_path: Path, kind: Kind) -> None:
    """All that is ours belongs to root, but for the directories of the job's user."""
    members = laid(tmp_path, kind)
    user = contract().user
    theirs = {f"rootfs{d.path}" for d in contract().directories if d.user == user.name}

    for name in kind.scripts:
        assert 0o755 == members[f"rootfs/usr/lib/pikaci/{name}"].mode
    assert theirs == {name for name, member in members.items() if member.uid == user.uid}


def test_a_unit_is_started_at_boot_and_its_program_is_there(tmp_path: Path) -> None:
    """Each unit is wanted by multi-user.target, as its own [Install] says, and starts a script."""
    members = laid(tmp_path, SYSTEMD)
    units = "rootfs/usr/lib/systemd/system"

    for unit in SYSTEMD.units:
        text = (guest_files() / unit).read_text()
        program = text.partition("ExecStart=")[2].partition("\n")[0]
        assert f"../{unit}" == members[f"{units}/multi-user.target.wants/{unit}"].linkname
        assert "WantedBy=multi-user.target" in text
        assert f"rootfs{program}" in members
    assert "rootfs/usr/sbin/init" not in members


def test_another_file_is_another_image() -> None:
    """The recipe is made from all that is laid on the base."""
    assert 3 == len({inputs(BARE), inputs(SYSTEMD), inputs(VM)})


def test_a_vm_is_the_guest_with_systemd_and_more(tmp_path: Path) -> None:
    """What the one has, the other has, and the way out, the runner and the network too."""
    assert set(SYSTEMD.packages) < set(VM.packages)
    assert (SYSTEMD.files or {}).items() < (VM.files or {}).items()
    assert (SYSTEMD.links or {}).items() < (VM.links or {}).items()
    assert (SYSTEMD.scripts, SYSTEMD.units) == (VM.scripts, VM.units)
