"""The initrd of a VM: what is in it, and in which order its modules are loaded."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.contract import guest_files
from orchestrator.image.initrd import MODULES, SUMS, NoModule, archive, initrd, load_order

# As depmod writes it: with all that a module needs, the first to load last.
NEEDS = {
    "drivers/virtio/virtio_pci": ["drivers/virtio/virtio"],
    "drivers/virtio/virtio": [],
    "drivers/scsi/virtio_scsi": [
        "drivers/scsi/scsi_mod",
        "drivers/scsi/scsi-common",
        "drivers/virtio/virtio",
    ],
    "drivers/scsi/scsi_mod": ["drivers/scsi/scsi-common"],
    "drivers/scsi/sd_mod": ["drivers/scsi/scsi_mod", "drivers/scsi/scsi-common"],
    "drivers/scsi/scsi-common": [],
    "fs/ext4/ext4": ["fs/jbd2/jbd2", "fs/mbcache"],
    "fs/jbd2/jbd2": [],
    "fs/mbcache": [],
}
DEPENDENCIES = "".join(
    f"kernel/{name}.ko.xz: {' '.join(f'kernel/{one}.ko.xz' for one in needs)}\n"
    for name, needs in NEEDS.items()
)
BUILTIN = "kernel/drivers/nvme/nvme-core.ko\n"


def test_a_module_is_loaded_after_what_it_needs() -> None:
    """Each once; what the kernel has built in, under whatever dash, not at all."""
    order = load_order(DEPENDENCIES, BUILTIN, ("nvme_core", *MODULES), "6.1")
    names = [path.rpartition("/")[2].partition(".")[0] for path in order]

    assert len(names) == len(set(names)) == len(NEEDS)
    for earlier, later in (
        ("virtio", "virtio_pci"),
        ("scsi-common", "scsi_mod"),
        ("scsi_mod", "virtio_scsi"),
        ("jbd2", "ext4"),
        ("mbcache", "ext4"),
    ):
        assert names.index(earlier) < names.index(later)


def test_what_ext4_sums_with_comes_first_where_it_is_a_module() -> None:
    """A newer kernel has none, and needs none."""
    module = f"kernel/crypto/{SUMS}.ko:\n"

    assert (
        f"kernel/crypto/{SUMS}.ko"
        == load_order(module + DEPENDENCIES, "", (SUMS, *MODULES), "6")[0]
    )
    assert load_order(DEPENDENCIES, "", MODULES, "7") == load_order(
        DEPENDENCIES, "", (SUMS, *MODULES), "7"
    )


def test_a_kernel_without_a_driver_is_told() -> None:
    """By its name, rather than by a VM that does not boot."""
    with pytest.raises(NoModule, match="6.1 has no module virtio_blk"):
        load_order(DEPENDENCIES, "", (*MODULES, "virtio_blk"), "6.1")


def test_the_kernel_can_read_it(tmp_path: Path) -> None:
    """As cpio does: the init first started, its console, and modules that are unpacked."""
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed: the archive is NOT read by another program")

    def read(name: str) -> bytes:
        known = {"modules.dep": DEPENDENCIES, "modules.builtin": BUILTIN}
        return known[name].encode() if name in known else lzma.compress(name.encode())

    init = (guest_files() / "initrd-init").read_bytes()
    packed = initrd(read, "6.1", b"busybox", init)
    listed = subprocess.run(
        ["cpio", "--quiet", "-tv"], input=gzip.decompress(packed), capture_output=True, check=True
    ).stdout.decode()
    subprocess.run(
        ["cpio", "--quiet", "-id", "init", "bin/busybox", "modules/*"],
        input=gzip.decompress(packed), cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip

    assert (tmp_path / "init").read_bytes() == init
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert "5,   1" in next(line for line in listed.splitlines() if "dev/console" in line)
    names = (tmp_path / "modules/order").read_text().split()
    assert "ext4" == names[-1]
    assert b"kernel/fs/ext4/ext4.ko.xz" == (tmp_path / "modules/ext4.ko").read_bytes()
    assert {f"{name}.ko" for name in names} | {"order"} == {
        path.name for path in (tmp_path / "modules").iterdir()
    }
    assert packed == initrd(read, "6.1", b"busybox", init)


def test_names_and_files_are_aligned() -> None:
    """The kernel looks for each header at a multiple of four."""
    data = archive({"a": b"1", "bc": b"22", "def": b"333"})

    assert 0 == len(data) % 4
    stream = io.BytesIO(data)
    names = []
    while head := stream.read(110):
        assert head.startswith(b"070701")
        size, length = int(head[54:62], 16), int(head[94:102], 16)
        names.append(stream.read(length).rstrip(b"\0").decode())
        stream.seek(-stream.tell() % 4, 1)
        stream.seek(size, 1)
        stream.seek(-stream.tell() % 4, 1)
    assert ["a", "bc", "def", "TRAILER!!!"] == names[-4:]
