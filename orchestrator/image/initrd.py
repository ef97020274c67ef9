"""The initrd of a VM image: a static busybox, our init, and the modules of its root disk. Pure.

One of Debian's, with udev and its rules, is ten times as large, and does far more at each boot.
"""

from __future__ import annotations

import gzip
import lzma
import posixpath
import stat
from collections.abc import Callable, Sequence

from states.errors import PikaciError

# What Incus's root disk needs: SCSI by virtio, with ext4.
MODULES = ("virtio_pci", "virtio_scsi", "sd_mod", "ext4")
# What ext4 sums with: the kernel would ask a modprobe for it, which this initrd lacks. Newer
# kernels have no such module.
SUMS = "crc32c_generic"
_BLOCK = 4
_CONSOLE = (5, 1)  # the kernel opens /dev/console before any device is made
_DIRECTORIES = ("dev", "proc", "root", "sys", "bin", "modules")

Read = Callable[[str], bytes]


class NoModule(PikaciError):
    """The kernel lacks a module that the root disk needs."""


def initrd(read: Read, kernel: str, busybox: bytes, init: bytes) -> bytes:
    """The initrd, packed. `read` returns a file of `/usr/lib/modules/KERNEL` by its name there.

    Raises `NoModule`.
    """
    paths = load_order(
        read("modules.dep").decode(), read("modules.builtin").decode(), (SUMS, *MODULES), kernel
    )
    names = [posixpath.basename(path).partition(".ko")[0] for path in paths]
    files = {
        "init": init,
        "bin/busybox": busybox,
        **{
            f"modules/{name}.ko": _unpack(path, read(path))
            for name, path in zip(names, paths, strict=True)
        },
        "modules/order": "".join(f"{name}\n" for name in names).encode(),
    }
    return gzip.compress(archive(files), mtime=0)


def load_order(dependencies: str, builtin: str, wanted: Sequence[str], kernel: str) -> list[str]:
    """The paths of the modules, each after those that it needs; none that the kernel has built in.

    `dependencies` and `builtin` are the files of depmod. Raises `NoModule`.
    """
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in dependencies.splitlines():
        path, _, names = line.partition(":")
        needs[_name(path)] = (path, names.split())
    within = {_name(line) for line in builtin.splitlines()}
    order: list[str] = []
    for name in wanted:
        if name in within or (name == SUMS and name not in needs):
            continue
        if name not in needs:
            raise NoModule(f"Linux {kernel} has no module {name}, which a VM's root disk needs")
        path, others = needs[name]
        order += [one for one in (*reversed(others), path) if one not in order]
    return order


def _name(path: str) -> str:
    return posixpath.basename(path).partition(".ko")[0].replace("-", "_")


def _unpack(path: str, data: bytes) -> bytes:
    if path.endswith(".ko"):
        return data
    if path.endswith(".ko.xz"):
        return lzma.decompress(data)
    raise NoModule(f"the module {path} is packed in an unknown way")


def archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive as the kernel reads it, of programs, and of the directories of init."""
    entries = [(name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in _DIRECTORIES]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", _CONSOLE))
    entries += [(name, stat.S_IFREG | 0o755, data, (0, 0)) for name, data in files.items()]
    entries.append(("TRAILER!!!", 0, b"", (0, 0)))
    packed = bytearray()
    for number, (name, mode, data, device) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        packed += b"070701" + b"".join(b"%08X" % field for field in fields)
        packed += name.encode() + b"\0"
        packed += bytes(-len(packed) % _BLOCK)
        packed += data
        packed += bytes(-len(packed) % _BLOCK)
    return bytes(packed)
