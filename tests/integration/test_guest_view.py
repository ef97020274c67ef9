"""What a job meets in a real guest of our image, and what its result says when it was too little."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import boot, start_again
from orchestrator.contract import guest_files
from tests.integration.lab import REAL, Lab
from tests.integration.test_runner_contract import booted, planned

pytestmark = pytest.mark.parametrize("lab", [REAL], indirect=True)
ON_BOTH = pytest.mark.parametrize("root", [False, True], ids=["user", "root"])

HUNGRY = "python3 -c 'bytearray(1 << 30)'"
# A first process that makes its shell before it goes on, as NixOS does.
LATE_SHELL = b"""\
#!/bin/bash
sleep 1
ln -s dash /bin/sh
exec /usr/sbin/real-init
"""
MANY = 'python3 -c \'import subprocess; [subprocess.Popen(["sleep", "50"]) for _ in range(99)]\''
# Segments that stay when their process has ended.
SYSTEM_V = """python3 -c '
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for _ in range(64):
    at = libc.shmat(libc.shmget(0, 16 << 20, 0o1600), None, 0)
    ctypes.memset(at, 1, 16 << 20)
    libc.shmdt(ctypes.c_void_p(at))
'"""
FILL = "head -c 2G /dev/zero >/artifacts/fill"


@ON_BOTH
async def test_too_little_memory(lab: Lab, tmp_path: Path, root: bool) -> None:
    """A command that fails as its guest ran out of memory has a hint that names the key."""
    job = await booted(lab, tmp_path, HUNGRY, memory="128MiB", run_as_root=root)
    ended = await job.run()
    result = await job.result()

    assert (137, "failed") == (ended.exit_code, result["status"])
    assert "out of memory; set memory" in result["hint"]


@ON_BOTH
async def test_too_little_disk(lab: Lab, tmp_path: Path, root: bool) -> None:
    """A command that fails on a full disk has a hint that names the key; its result is whole."""
    job = await booted(lab, tmp_path, f"{FILL} || exit 3", disk="512MiB", run_as_root=root)
    ended = await job.run()
    result = await job.result()

    assert (3, 3) == (ended.exit_code, result["exit_code"])
    assert "disk is full; set disk" in result["hint"]


@ON_BOTH
async def test_too_few_processes(lab: Lab, tmp_path: Path, root: bool) -> None:
    """A command that fails as its guest has no free process has a hint that names the key."""
    job = await booted(lab, tmp_path, MANY, processes=64, run_as_root=root)
    await job.run()
    result = await job.result()

    assert ("failed", 1) == (result["status"], result["exit_code"])
    assert "out of processes; set processes" in result["hint"]


@pytest.mark.parametrize("fill", ["head -c 1G /dev/zero >/dev/shm/x", SYSTEM_V])
async def test_a_job_that_fills_its_shared_memory(lab: Lab, tmp_path: Path, fill: str) -> None:
    """Has its own verdict: no process that is killed can free this memory."""
    job = await booted(lab, tmp_path, f"{fill} || :; exit 5", memory="256MiB")
    await job.run()
    result = await job.result()

    assert ("failed", 5) == (result["status"], result["exit_code"])


async def test_a_job_that_fills_a_memory_file_system_of_the_guest(lab: Lab, tmp_path: Path) -> None:
    """As systemd's /run is one; it stays when the job has ended, so it has only a quarter."""
    job = await booted(
        lab, tmp_path, "head -c 1G /dev/zero >/mnt/x || exit 5", memory="256MiB", run_as_root=True
    )
    await lab.exec(job.plan.instance, "mount", "-t", "tmpfs", "-o", "size=1G", "none", "/mnt")
    await job.run()
    result = await job.result()
    shown = await lab.exec(job.plan.instance, "sh", "-c", "stat -c %s /mnt/x; sleep 0.1")

    assert ("failed", 5) == (result["status"], result["exit_code"])
    assert 64 << 20 == int(shown.stdout)


async def test_a_job_that_fills_a_memory_file_system(lab: Lab, tmp_path: Path) -> None:
    """Its init is killed at last, and all that it mounted goes; that is a failed command."""
    fill = "mkdir /t; mount -t tmpfs -o size=1G none /t; head -c 1G /dev/zero >/t/x; exit 5"
    job = await booted(lab, tmp_path, fill, memory="256MiB", run_as_root=True)
    await job.run()
    result = await job.result()

    assert ("failed", 137) == (result["status"], result["exit_code"])
    assert "out of memory; set memory" in result["hint"]


@pytest.mark.parametrize("command", ["exit 3", f"{HUNGRY} || true", f"{FILL} || true"])
async def test_no_hint(lab: Lab, tmp_path: Path, command: str) -> None:
    """A command that failed for reasons of its own has no hint, nor has one that passed."""
    job = await booted(lab, tmp_path, command, memory="128MiB", disk="512MiB")
    await job.run()

    assert "hint" not in await job.result()


async def test_shared_memory(lab: Lab, tmp_path: Path) -> None:
    """A job may make semaphores: /dev/shm is there for everybody."""
    locks = "python3 -c 'import multiprocessing; multiprocessing.Lock()'; mountpoint /dev/shm"
    job = await booted(lab, tmp_path, locks)

    assert 0 == (await job.run()).exit_code


async def test_the_image_has_what_everyday_projects_expect(lab: Lab, tmp_path: Path) -> None:
    """Compilers that work, and the tools that scripts call without asking."""
    tools = "bzip2 cmake file g++ git jq less make patch pkg-config pip3 python3 rsync ssh unzip xz zip zstd"
    build = (
        "cd /tmp; echo 'int main() { return 0; }' >a.cc; g++ a.cc; ./a.out; getent services http"
    )
    job = await booted(lab, tmp_path, f"{build}; for tool in {tools}; do command -v $tool; done")
    ended = await job.run()

    assert 0 == ended.exit_code, ended.stdout


async def test_programs_of_nixos_are_found(lab: Lab, tmp_path: Path) -> None:
    """An exec of ours finds what is in /run/current-system/sw/bin, and so does what it starts."""
    job = await booted(lab, tmp_path, "true")
    # It takes a moment, as Incus may lose what an exec prints that ends at once.
    put = (
        "printf '#!/bin/sh\\nsleep 0.1; echo found\\n' >/run/current-system/sw/bin/only-there;"
        " chmod +x /run/current-system/sw/bin/only-there"
    )
    await lab.exec(job.plan.instance, "sh", "-c", put)

    for command in (["only-there"], ["sh", "-c", "only-there"]):
        done = await lab.incus.perform(commands.collect(job.plan, command))

        assert b"found\n" == done.stdout


async def test_a_guest_that_begins_without_a_shell(lab: Lab, tmp_path: Path) -> None:
    """It is ready when its own first process has made one."""
    job = await planned(lab, tmp_path, "true")
    guest = f"local:{job.plan.instance}"
    await lab.create_stopped(job.plan)
    for name in ("/usr/bin/sh", "/usr/sbin/init"):
        await lab.run("file", "delete", guest + name)
    init = (guest_files() / "init").read_bytes()
    for name, content in {"/usr/sbin/init": LATE_SHELL, "/usr/sbin/real-init": init}.items():
        put = ("file", "push", "--quiet", "--mode=0755", "-", guest + name)
        await lab.run(*put, stdin=content)

    await start_again(lab.incus, job.plan)
    await boot(lab.incus, job.plan)

    assert 0 == (await job.run()).exit_code
