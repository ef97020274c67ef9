"""A host over TLS: how fast a tree gets there, what an unchanged one costs, and a job's price.

    python -m tests.benchmarks.tls [FILES] [JOBS]

Runs on a real daemon of its own, on the loopback. Jobs take turns on its socket and over TLS; only
their ratio means something. Bytes are those of the connection, counted by a forwarder between.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio

from orchestrator import Orchestrator, Settings
from orchestrator.hosts import Tree, find_host
from orchestrator.hosts.volumes import VolumeTrees
from orchestrator.incus import Call
from states.spec import JobSpec
from tests.hosts.forwarder import forwarder
from tests.integration.tls_host import TlsHost, tls_host

FILES, JOBS = 10_000, 7
MIB = 1 << 20
SOURCES = Path(__file__).parents[2]


def make_tree(base: Path, files: int) -> Tree:
    """Python sources, each with a line of its own."""
    sources = [path.read_bytes() for path in sorted(SOURCES.rglob("*.py"))]
    for number in range(files):
        path = base / str(number // 100) / f"{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"# %d\n" % number + sources[number % len(sources)])
    return Tree(f"benchmark-{files}", base)


async def timed(call: Any) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def volumes(host: TlsHost, conf: Path, base: Path, files: int) -> None:
    """Send a tree, twice."""
    with forwarder(host.address) as way:
        incus = await host.reached(conf, address=way.address)
        tree = make_tree(base, files)
        size = sum(os.path.getsize(path) for path in base.rglob("*.py"))
        copied = await timed(partial(trio.run_process, ["cp", "-a", base, f"{base}-copy"]))
        calls: list[Call] = []
        trees = VolumeTrees(incus.observed(calls.append), host.pool)
        for name in ("first", "unchanged"):
            before = way.bytes
            calls.clear()
            secs = await timed(lambda: trees.deliver([tree], lease_secs=3600))
            print(
                f"{name}: {files} files, {size / MIB:.0f} MiB: {secs:.2f} s"
                f" ({secs / copied:.2f} times a `cp -a`), {len(calls)} calls,"
                f" {(way.bytes - before) / 1024:.0f} KiB on the wire"
            )


async def jobs(host: TlsHost, base: Path, count: int) -> None:
    """The same job on the daemon's socket, over TLS, and over TLS with 20 ms each way."""
    with forwarder(host.address, delay_secs=0.01) as slow:
        found: dict[str, list[float]] = {}
        lines = []
        for name, address in (("tls", host.address), ("slow", slow.address)):
            await host.reached(base / "state/pikaci/incus", name=name, address=address)
            lines.append(f'[hosts.{name}]\nremote = "{name}"\n')
        (base / "hosts.toml").write_text("".join(lines))
        os.environ |= {
            "PIKACI_HOSTS": str(base / "hosts.toml"),
            "XDG_STATE_HOME": str(base / "state"),
            "INCUS_DIR": str(host.daemon.directory),
        }
        for _ in range(count + 1):
            for name in ("local", "tls", "slow"):
                found.setdefault(name, []).append(await job(base, name))
        medians = {name: statistics.median(secs[1:]) for name, secs in found.items()}
        for name, what in (("tls", "over TLS"), ("slow", "over TLS with 20 ms a round trip")):
            ratio = medians[name] / medians["local"]
            print(f"a job {what}: {ratio:.2f} times a local one ({medians['local']:.2f} s)")


async def job(base: Path, host: str) -> float:
    workspace = base / "ws"
    workspace.mkdir(exist_ok=True)
    settings = Settings(workspace=workspace, state_root=base / host, host=find_host(host))
    spec = JobSpec(command="true", disk="2GiB", memory="1GiB")
    async with Orchestrator.open(settings) as orchestrator:
        began = time.perf_counter()
        await orchestrator.submit_and_wait(spec)
        return time.perf_counter() - began


async def main(files: int, count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pikaci-tls-") as name, tls_host() as host:
        base = Path(name)
        (base / "tree").mkdir()
        await volumes(host, base / "conf", base / "tree", files)
        host.restrict("false")  # the local job mounts a directory
        await jobs(host, base, count)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    trio.run(main, *(given + [FILES, JOBS][len(given) :]))
