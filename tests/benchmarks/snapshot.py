"""What a snapshot costs, beside rsync and git on the same tree.

    python -m tests.benchmarks.snapshot [DIRECTORY]

Two trees are made below the directory (default: a temporary one): 10,000 files of 20 KB, and 100,000
of 200 bytes. Each is published for the first time, unchanged, and with one changed file; so do
`rsync -a --link-dest` and `git add; git write-tree`. They take turns. Only the ratios mean something,
and they depend on the file system: hard links, the sync of a snapshot, and what else writes to it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from orchestrator.snapshot.snapshot import publish

TREES = {"10,000 files of 20 KB": (10_000, 20_000), "100,000 files of 200 B": (100_000, 200)}
ROUNDS = 3
PER_DIRECTORY = 100
SETTLED_SECS = 3.0  # files that were just written are read once more


def fill(workspace: Path, files: int, size: int) -> None:
    """Make the tree, committed."""
    for number in range(files):
        if number % PER_DIRECTORY == 0:
            (workspace / f"d{number // PER_DIRECTORY}").mkdir(parents=True)
        path = workspace / f"d{number // PER_DIRECTORY}" / f"f{number}"
        path.write_bytes(number.to_bytes(8, "big") * (size // 8))
    for args in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "a")):
        run(
            "git",
            "-c",
            "gc.auto=0",
            "-c",
            "user.name=n",
            "-c",
            "user.email=e@example.com",
            *args,
            cwd=workspace,
        )


def run(*argv: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """What a command prints."""
    environment = os.environ | variables
    done = subprocess.run(argv, cwd=cwd, env=environment, check=True, capture_output=True)
    return done.stdout.decode().strip()


class Contest:
    """Three ways to keep a tree, in directories of their own."""

    def __init__(self, workspace: Path, beside: Path) -> None:
        self._workspace = workspace
        self._beside = beside
        self._number = 0
        self._previous: Path | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything that was kept."""
        self._number += 1
        self._base = self._beside / str(self._number)
        (self._base / "snapshots").mkdir(parents=True)
        self._previous = None
        os.sync()

    def pikaci(self) -> None:
        async def once() -> None:
            snapshots = self._base / "snapshots"
            index = self._base / "index"
            await publish(self._workspace, snapshots, owner=(1000, 100), index=index)

        trio.run(once)

    def rsync(self) -> None:
        self._number += 1
        target = self._base / f"rsync-{self._number}"
        link = [f"--link-dest={self._previous}"] if self._previous else []
        run("rsync", "-a", "--exclude=/.git", *link, f"{self._workspace}/", target)
        self._previous = target

    def git(self) -> None:
        git_dir = self._base / "git"
        names = {"GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(self._workspace)}
        if not git_dir.exists():
            run("git", "init", "-q", **names)
        run("git", "add", "-A", cwd=self._workspace, **names)
        run("git", "write-tree", cwd=self._workspace, **names)


def seconds(call: Callable[[], None]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(workspace: Path, beside: Path) -> dict[str, dict[str, float]]:
    """The median seconds of each step for each way."""
    found: dict[str, dict[str, list[float]]] = {}
    contest = Contest(workspace, beside)
    for round_ in range(ROUNDS):
        contest.begin_anew()
        ways = {"pikaci": contest.pikaci, "rsync": contest.rsync, "git": contest.git}
        time.sleep(SETTLED_SECS)
        for step in ("first", "unchanged", "one changed"):
            if step == "one changed":
                (workspace / "d0" / "f7").write_text(f"{round_}\n")
            for way, call in ways.items():
                found.setdefault(step, {}).setdefault(way, []).append(seconds(call))
    return {
        step: {way: statistics.median(times) for way, times in ways.items()}
        for step, ways in found.items()
    }


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(
        prefix="pikaci-snapshot-", dir=sys.argv[1] if len(sys.argv) > 1 else None
    ) as name:
        for title, (files, size) in TREES.items():
            workspace = Path(name, str(files), "workspace")
            fill(workspace, files, size)
            found = measure(workspace, Path(name, str(files), "kept"))
            first = found["first"]["pikaci"]
            print(f"{title}; the first takes {first:.2f} s")
            for step, times in found.items():
                ours = times["pikaci"]
                print(
                    f"  {step:12} {ours / first:.2f} of the first;"
                    f" {ours / times['rsync']:.2f} times rsync's {times['rsync']:.2f} s;"
                    f" {ours / times['git']:.2f} times git's {times['git']:.2f} s"
                )


if __name__ == "__main__":
    main()
