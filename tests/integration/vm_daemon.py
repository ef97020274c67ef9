"""A real daemon that was told that its host can make virtual machines.

Incus decides that once, as it starts: it has a module loaded by modprobe, listens on the host's
side of vsock, and asks QEMU for its version and, over QMP, for its features. Here stand-ins
answer; to a file system of an image they answer as qemu-img too. What then judges the config and
the devices of a VM, and makes it, is all of Incus itself. None can be started.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.private_daemon import LIBEXEC, PROJECT, SECS

VM_IMAGE = "test/vm"
MODPROBE = "#!/bin/sh\n"
QEMU_IMG = """\
#!/bin/sh
case "$1" in info) echo '{"format": "qcow2", "virtual-size": 1048576}' ;; esac
"""
# What internal/server/instance/drivers/driver_qemu.go (Info, checkFeatures) asks of it.
QEMU = f"""\
#!{sys.executable}
import json, os, re, socket, sys
if sys.argv[1:] == ["--version"]:
    sys.exit(print("QEMU emulator version 8.2.0"))
ANSWERS = {{
    "qmp_capabilities": {{}},
    "query-version": {{}},
    "query-hotpluggable-cpus": [],
    "query-cpu-model-expansion": {{"model": {{"name": "kvm64", "props": {{}}}}}},
}}
path = re.search(r"path=([^,]*)", " ".join(sys.argv)).group(1)
os.unlink(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
while True:
    client = server.accept()[0]
    say = lambda document: client.sendall(json.dumps(document).encode() + b"\\n")
    version = {{"major": 8, "minor": 2, "micro": 0}}
    say({{"QMP": {{"version": {{"qemu": version, "package": ""}}, "capabilities": []}}}})
    while chunk := client.recv(65536):
        asked = json.loads(chunk.replace(b"'", b'"'))["execute"]
        known = {{"return": ANSWERS.get(asked)}}
        say(known if asked in ANSWERS else {{"error": {{"class": "GenericError", "desc": asked}}}})
"""
# Runs a program for which each vsock socket is its stdin, a listening one, bound already: only a
# kernel with the module lets the host's address be bound. A filter of the kernel's sees to that.
VSOCK = """\
import ctypes, os, socket, struct, sys
listener = socket.socket(socket.AF_VSOCK)
listener.bind((socket.VMADDR_CID_ANY, 0xFFFFFFFF))
listener.listen()
os.dup2(listener.fileno(), 0)
SOCKET, BIND, LOAD, IF_EQUAL, RETURN = 41, 49, 0x20, 0x15, 0x06
DONE, GO_ON = 0x00050000, 0x7FFF0000
rules = [
    (LOAD, 0, 0, 0),  # the call's number
    (IF_EQUAL, 0, 2, SOCKET),
    (LOAD, 0, 0, 16),  # its first argument: the family
    (IF_EQUAL, 3, 4, socket.AF_VSOCK),
    (IF_EQUAL, 0, 3, BIND),
    (LOAD, 0, 0, 16),  # its first argument: the socket
    (IF_EQUAL, 0, 1, 0),
    (RETURN, 0, 0, DONE),  # with 0: no error, and the number of the socket
    (RETURN, 0, 0, GO_ON),
]
code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
PR_SET_SECCOMP, FILTER = 22, 2
program = ctypes.byref(Program(len(rules), code))
assert ctypes.CDLL(None).prctl(PR_SET_SECCOMP, FILTER, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def why_not() -> str:
    """Why there can be no such daemon here; empty when there can."""
    if platform.machine() != "x86_64":
        return "the filter of system calls is of x86_64"
    return next(
        (f"no {path}" for path in ("/dev/kvm", "/dev/vsock") if not Path(path).exists()), ""
    )


@contextmanager
def vm_daemon() -> Iterator[Path]:
    """INCUS_DIR of the daemon, with the project, a pool and a VM's image; gone after the block."""
    with tempfile.TemporaryDirectory(prefix="pikaci-vm-") as directory:
        base = Path(directory)
        tools, firmware, incus = base / "bin", base / "edk2", base / "incus"
        for made in (tools, firmware, incus):
            made.mkdir(mode=0o711)
        scripts = {"modprobe": MODPROBE, "qemu-system-x86_64": QEMU, "qemu-img": QEMU_IMG}
        for name, text in scripts.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        for name in ("OVMF_CODE.fd", "OVMF_VARS.fd"):
            (firmware / name).touch()
        paths = {
            "INCUS_DIR": str(incus),
            "INCUS_EDK2_PATH": str(firmware),
            "PATH": f"{tools}:{LIBEXEC}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", VSOCK, f"{LIBEXEC}/incusd", "--logfile", str(base / "log")],
            env=paths,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _run([f"{LIBEXEC}/incusd", "waitready", "--timeout", "60"], paths)
            _furnish(base, paths)
            yield incus
        finally:
            # With it goes the stand-in that it left running after its features were asked for.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECS)
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in reversed([path for path in mounts if path.startswith(f"{base}/")]):
                subprocess.run(["umount", "--lazy", mount], timeout=SECS)


def _furnish(base: Path, paths: dict[str, str]) -> None:
    metadata = {
        "architecture": "x86_64",
        "creation_date": 1,
        "properties": {"pikaci.contract": "1", "requirements.secureboot": "false"},
    }
    (base / "metadata.yaml").write_text(json.dumps(metadata))
    with tarfile.open(base / "metadata.tar", "w") as archive:
        archive.add(base / "metadata.yaml", "metadata.yaml")
    (base / "disk.qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(504))
    features = ("--config=features.images=true", "--config=features.profiles=true")
    files = (str(base / "metadata.tar"), str(base / "disk.qcow2"))
    for command in (
        ("storage", "create", "pikaci", "dir"),
        ("project", "create", PROJECT, *features),
        ("image", "import", "--project", PROJECT, *files, f"--alias={VM_IMAGE}"),
    ):
        _run(["incus", *command], {**paths, "INCUS_CONF": str(base / "conf")})


def _run(command: list[str], env: dict[str, str]) -> None:
    subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=SECS
    )


@pytest.fixture(scope="session")
def vm_daemon_of_all() -> Iterator[Path]:
    """One for all tests: it takes seconds to start."""
    if reason := why_not():
        pytest.skip(f"no daemon can be told that it has VMs: {reason}")
    with vm_daemon() as directory:
        yield directory
