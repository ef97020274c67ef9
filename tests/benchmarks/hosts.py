"""What a job on a host over ssh costs, beside a local one; and a changed tree beside rsync.

    python -m tests.benchmarks.hosts [jobs|trees]

Needs root, sshd, and an Incus that is set up. The host is this machine, reached over ssh, with and
without a delay of 20 ms each way. Times are medians of rounds that alternate; only ratios hold.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from orchestrator.hosts import Tree, open_hosts
from orchestrator.settings import open_incus
from orchestrator.snapshot.snapshot import publish
from tests.hosts.far_host import NAME, FarHost, far_host
from tests.hosts.forwarder import Forwarder, forwarder
from tests.integration.command import Command

FILES, FILE_BYTES, ROUNDS = 10_000, 8_000, 3
DELAY_SECS = 0.02


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextmanager
def through(far: FarHost, way: Forwarder) -> Iterator[None]:
    """Reach the host through the forwarder."""
    (far.base / "known_hosts").open("a").write(
        (far.base / "known_hosts").read_text().replace(f":{far.port} ", f":{way.port} ")
    )
    far.settings(port=way.port)
    yield


def jobs(far: FarHost, base: Path, way: Forwarder) -> None:
    """A job there beside one here, in turn."""
    pikaci = Command(base)
    (pikaci.workspace / "file").write_text("x")
    here = dict(pikaci.env)
    there = {**here, **far.environment}
    rows: dict[str, list[float]] = {"local": [], "ssh": [], "ssh + 20 ms": []}
    for env in (here, there):
        pikaci.env = env
        assert 0 == pikaci("run", "--", "true").returncode
    for _ in range(ROUNDS):
        for name, env, delay in (
            ("local", here, 0.0),
            ("ssh", there, 0.0),
            ("ssh + 20 ms", there, DELAY_SECS),
        ):
            pikaci.env, way.delay_secs = env, delay
            before = way.sent, way.received
            rows[name].append(timed(lambda: pikaci("run", "--", "true").check_returncode()))
            if name == "ssh":
                sent, received = way.sent - before[0], way.received - before[1]
    medians = {name: statistics.median(times) for name, times in rows.items()}
    for name, secs in medians.items():
        print(f"job, {name}: {secs / medians['local']:.2f} of local")
    print(f"an unchanged job over ssh: {sent} bytes there, {received} back, login included")
    calls = counted_calls(far, lambda: pikaci("run", "--", "true", **there).check_returncode())
    shown = ", ".join(f"{count} {verb}" for verb, count in sorted(calls.items()))
    print(f"and {calls.total()} incus commands: {shown}")


def counted_calls(far: FarHost, run: Callable[[], object]) -> Counter[str]:
    """How many incus commands `run` starts, by verb; not timed, as counting costs time."""
    program, calls = far.base / "bin/incus", far.base / "calls"
    program.write_text(f'#!/bin/sh\necho "$1" >> {calls}\nexec {shutil.which("incus")} "$@"\n')
    program.chmod(0o755)
    run()
    program.unlink()
    return Counter(calls.read_text().split())


async def trees(far: FarHost, base: Path, way: Forwarder) -> None:
    """A tree of many files: first, unchanged, one file changed; and the same by rsync."""
    workspace, snapshots = base / "many", base / "snapshots"
    for number in range(FILES):
        path = workspace / f"{number // 100}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(FILE_BYTES // 2).hex().encode())
    snapshots.mkdir()
    owner = (1000, 100)

    async def snapshot() -> Tree:
        made = await publish(workspace, snapshots, owner=owner, index=base / "index")
        return Tree(made.hash, made.path)

    ssh = f"{far.base / 'bin/ssh'} -p {way.port} -i {far.base / 'key'}"
    target = f"{far.user}@127.0.0.1:{far.home}/rsync"
    previous = ""

    def rsync(tree: Tree) -> None:
        nonlocal previous
        link = [f"--link-dest=../{previous}"] if previous else []
        command = ["rsync", "-a", "-e", ssh, *link, f"{tree.path}/", f"{target}/{tree.name}/"]
        subprocess.run(command, check=True, capture_output=True)
        previous = tree.name

    async def measured(what: str, tree: Tree, there: object) -> None:
        before, began = way.sent, time.perf_counter()
        await there.trees.deliver([tree], lease_secs=600)  # type: ignore[attr-defined]
        ours, bytes_ours = time.perf_counter() - began, way.sent - before
        before, began = way.sent, time.perf_counter()
        await trio.to_thread.run_sync(rsync, tree)
        theirs, bytes_theirs = time.perf_counter() - began, way.sent - before
        print(
            f"{what}: {bytes_ours} bytes, rsync {bytes_theirs}; time {ours / theirs:.2f} of rsync's"
        )

    async with open_hosts(open_incus()) as hosts:
        there = hosts.at(NAME)
        subprocess.run(["install", "-d", "-o", "1000", str(far.home / "rsync")], check=True)
        tree = await snapshot()
        await measured(f"{FILES} files, first", tree, there)
        await measured("unchanged", tree, there)
        for number in range(ROUNDS):
            (workspace / "7/700").write_text(f"changed {number}")
            await measured("one file changed", await snapshot(), there)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pikaci-hosts-") as directory, far_host() as far:
        base = Path(directory)
        with forwarder(f"127.0.0.1:{far.port}") as way, through(far, way):
            for name, value in far.environment.items():
                os.environ[name] = value
            if "jobs" not in sys.argv:
                trio.run(trees, far, base, way)
            del os.environ["PIKACI_HOST"]
            if "trees" not in sys.argv:
                jobs(far, base, way)


if __name__ == "__main__":
    main()
