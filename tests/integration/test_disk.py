"""The disk of a VM image, made of a small file system, and read by other programs."""

from __future__ import annotations

import json
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract import contract
from orchestrator.image.disk import CMDLINE, EFI_MIB, MIB, TOOLS, make_disk, missing_tools
from orchestrator.image.initrd import MODULES
from orchestrator.image.layer import lay
from orchestrator.image.machine import VM
from states.errors import PikaciError
from tests.unit.orchestrator.test_uki import sections_of, stub

KERNEL = "6.9-test"
FILES = {
    "boot/vmlinuz-6.9-test": b"linux" * 999,
    "boot/config-6.9-test": b"not needed",
    "usr/bin/busybox": b"busybox",
    "usr/lib/os-release": b"ID=debian\n",
    "usr/lib/systemd/boot/efi/linuxx64.efi.stub": stub(),
    f"usr/lib/modules/{KERNEL}/modules.builtin": b"",
    f"usr/lib/modules/{KERNEL}/modules.dep": "".join(f"{m}.ko:\n" for m in MODULES).encode(),
    **{f"usr/lib/modules/{KERNEL}/{module}.ko": b"module" for module in MODULES},
}


class Disk:
    """The image that is made of such a file system, taken apart again."""

    def __init__(self, metadata: Path, disk: Path) -> None:
        self._raw = disk.with_name("raw")
        self._root, self._program = disk.with_name("root-fs"), disk.with_name("program")
        self.info = json.loads(_run("qemu-img", "info", "--output=json", disk))
        _run("qemu-img", "convert", "-O", "raw", disk, self._raw)
        self.table = json.loads(_run("sfdisk", "--json", self._raw))["partitiontable"]
        root = self.table["partitions"][1]
        with self._raw.open("rb") as file:
            file.seek(root["start"] * 512)
            self._root.write_bytes(file.read(root["size"] * 512))
        efi = f"{self._raw}@@1M"
        _run("mcopy", "-i", efi, "::/EFI/BOOT/BOOTX64.EFI", self._program)
        self.program = sections_of(self._program.read_bytes())
        with tarfile.open(metadata) as archive:
            (member,) = archive.getmembers()
            content = archive.extractfile(member)
            assert content is not None
            self.metadata: dict[str, Any] = json.load(content)

    def debugfs(self, request: str) -> str:
        return _run("debugfs", "-R", request, self._root)

    def superblock(self) -> str:
        return _run("dumpe2fs", "-h", self._root) + _run("e2fsck", "-fn", self._root)


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _laid(directory: Path, files: dict[str, bytes] = FILES) -> Path:
    base = directory / "base.tar"
    with tarfile.open(base, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"rootfs/{name}")
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, BytesIO(content))
        for name, uid in (("rootfs/home/pikaci", 1000), ("rootfs/etc/systemd", 0)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, 0o755, uid, 100
            archive.addfile(member)
    return lay(base, directory / "image.tar", VM, {"os": "Debian"})


@pytest.fixture
async def disk(tmp_path: Path) -> Disk:
    """Made once a test: it takes a second."""
    if missing := missing_tools():
        pytest.skip(f"{', '.join(missing)} not installed (`.ci/vm build`): disks are NOT tested")
    said: list[str] = []
    return Disk(*await make_disk(_laid(tmp_path), tmp_path, say=said.append))


async def test_its_partitions_are_those_of_a_machine_with_efi(disk: Disk) -> None:
    """One for EFI, and behind it the root, by whose type it is found and grown."""
    efi, root = disk.table["partitions"]

    assert ("gpt", "qcow2") == (disk.table["label"], disk.info["format"])
    assert ("efi", MIB // 512, EFI_MIB * MIB // 512) == (efi["name"], efi["start"], efi["size"])
    assert ("root", efi["start"] + efi["size"]) == (root["name"], root["start"])
    assert "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" == efi["type"]
    assert "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709" == root["type"]


async def test_its_kernel_is_one_program(disk: Disk) -> None:
    """The stub, with the kernel, what it is told, and the initrd."""
    assert b"linux" * 999 == disk.program[".linux"]
    assert CMDLINE.encode() == disk.program[".cmdline"]
    assert b"ID=debian\n" == disk.program[".osrel"]
    assert disk.program[".initrd"].startswith(b"\x1f\x8b")


async def test_its_root_has_what_a_container_has_and_its_own(disk: Disk) -> None:
    """The same programs and directories; units that are started, and some that are not."""
    user = contract().user
    wanted = "/usr/lib/systemd/system/multi-user.target.wants"
    agent = disk.debugfs("cat /etc/systemd/system/incus-agent.service.d/pikaci.conf")

    assert "Mode:  0755" in disk.debugfs("stat /usr/lib/pikaci/pikaci-incus-run")
    assert f"User:  {user.uid}   Group:   {user.gid}" in disk.debugfs("stat /home/pikaci")
    assert f"User:  {user.uid}" in disk.debugfs(f"stat {contract().artifacts}")
    for unit in VM.units:
        assert f'"../{unit}"' in disk.debugfs(f"stat {wanted}/{unit}")
    assert '"/dev/null"' in disk.debugfs("stat /etc/systemd/system/getty.target")
    assert {"KillMode=process", "OOMPolicy=continue"} <= set(agent.splitlines())
    assert "x-systemd.growfs" in disk.debugfs("cat /etc/fstab")
    assert "Type=root" in disk.debugfs("cat /etc/repart.d/50-root.conf")
    assert b"linux" not in disk.debugfs("ls -p /boot").encode()
    assert "efi" not in disk.debugfs("ls -p /usr/lib/systemd/boot")


async def test_its_file_system_is_whole(disk: Disk) -> None:
    """By the name that the kernel is told; it can grow, and has no journal."""
    said = disk.superblock()

    assert "pikaci" in said.split("volume name:")[1].splitlines()[0]
    assert "resize_inode" in said
    assert "has_journal" not in said


async def test_incus_is_told_what_the_image_is(disk: Disk) -> None:
    """The versions of the contract are in the metadata, as in a container's."""
    properties = disk.metadata["properties"]

    assert str(contract().version) == properties[contract().image_property]
    assert str(contract().minor) == properties[contract().minor_property]
    assert "x86_64" == disk.metadata["architecture"]


async def test_a_machine_without_the_commands_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, with their packages."""
    monkeypatch.setattr("orchestrator.image.disk._PATH", str(tmp_path))

    with pytest.raises(PikaciError, match="mformat.*qemu-img") as error:
        await make_disk(tmp_path / "laid", tmp_path, say=print)

    assert set(TOOLS.values()) <= set(error.value.resolution.split())


async def test_a_file_system_without_a_kernel_is_told(tmp_path: Path) -> None:
    """Nothing of a disk is left."""
    if missing_tools():
        pytest.skip("the commands are not installed")
    rest = {name: content for name, content in FILES.items() if "vmlinuz" not in name}

    with pytest.raises(PikaciError, match="has no rootfs/boot/vmlinuz"):
        await make_disk(_laid(tmp_path, rest), tmp_path, say=print)

    assert not list(tmp_path.glob("disk*"))
