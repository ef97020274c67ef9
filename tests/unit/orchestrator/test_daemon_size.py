"""doctor warns of an Incus daemon that will soon start no process any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.fake_incus import FakeIncus
from orchestrator.host import doctor
from orchestrator.host.daemon_size import PROC, daemon_size, judge
from orchestrator.incus import LOCAL, Completed, Host, Incus

STATUS = "Name:\t{name}\nUmask:\t0022\nPid:\t77\nVmPeak:\t99999999 kB\nVmSize:\t{size:8} kB\n"
MEMORY = "MemTotal:       {memory:8} kB\nMemFree:        1 kB\nSwapTotal:      {swap:8} kB\n"
GIB = 1 << 20  # in KiB


def proc(base: Path, *, size: int = 18 * GIB, name: str = "incusd", overcommit: str = "0") -> Path:
    (base / "77").mkdir()
    (base / "77/status").write_text(STATUS.format(name=name, size=size))
    (base / "meminfo").write_text(MEMORY.format(memory=20 * GIB, swap=4 * GIB))
    (base / "sys/vm").mkdir(parents=True)
    (base / "sys/vm/overcommit_memory").write_text(f"{overcommit}\n")
    return base


def test_a_daemon_that_has_nearly_outgrown_its_host_is_told(tmp_path: Path) -> None:
    """What it is, how much it has of what there is, and what to do."""
    row = daemon_size(77, proc(tmp_path))

    assert row is not None and ("warning", "daemon") == (row.state, row.subject)
    assert row.found.startswith("incusd (pid 77) has 18 GiB of address space, 75 % of ")
    assert row.remedy.startswith("restart it (systemctl restart incus); guests ")


@pytest.mark.parametrize(
    ("size", "memory", "swap", "told"),
    [(69, 100, 0, False), (70, 100, 0, True), (70, 80, 21, False), (9, 0, 0, False)],
)
def test_swap_counts(size: int, memory: int, swap: int, told: bool) -> None:
    status = STATUS.format(name="incusd", size=size)

    assert told == (judge(77, status, MEMORY.format(memory=memory, swap=swap)) is not None)


@pytest.mark.parametrize("host", [Host(), Host(name="build")])
async def test_doctor_asks_the_daemon_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    """The process of another machine's has a number that means nothing here."""
    monkeypatch.setattr(doctor, "daemon_size", partial(daemon_size, proc=proc(tmp_path)))
    async with FakeIncus.open() as fake:

        async def spawn(argv: Sequence[str], *, sink: Any, **options: Any) -> Completed:
            async def with_pid(chunk: bytes) -> None:
                await sink(
                    chunk.replace(b'"server_version"', b'"server_pid": 77, "server_version"')
                )

            return await fake(argv, sink=with_pid, **options)

        incus = Incus(tmp_path / "conf", program="true", spawn=spawn).of(host)
        rows = [row async for row in doctor.examine_incus(incus, host) if row.subject == "daemon"]

    told = [row.state for row in rows]
    assert told == (["ok", "warning"] if host.name == LOCAL else ["ok"])


@pytest.mark.parametrize("kernel", [{"name": "bash"}, {"overcommit": "1"}, {"size": 0}])
def test_what_cannot_be_told_is_no_warning(tmp_path: Path, kernel: dict[str, str | int]) -> None:
    """Another process has that number here, or the kernel refuses no fork."""
    assert None is daemon_size(77, proc(tmp_path, **kernel))  # type: ignore[arg-type]
    assert None is daemon_size(78, tmp_path)


def test_this_kernel_s_words_are_read() -> None:
    """As `/proc` has them: a process that has a part of nothing has all of it."""
    _, rest = (PROC / str(os.getpid()) / "status").read_text().split("\n", 1)
    memory = (PROC / "meminfo").read_text()

    assert None is judge(77, f"Name:\tincusd\n{rest}", memory)
    assert None is not judge(77, f"Name:\tincusd\n{rest}", "MemTotal:       1 kB\n")
