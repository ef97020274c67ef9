"""Many jobs on the real Incus while whatever drives them is killed at random.

    python -m tests.benchmarks.soak --jobs 500 --at-once 8 --kills 200 --seed 1 --incusd

Kinds of job: passes, fails, runs too long, prints a lot, leaves an artifact. What is killed -9:
the pikaci process, alone or with its group, and the incus clients of its jobs; after each death
of pikaci it is started again, as `resume` or as another `run` on the same state root. With
`--incusd` the daemon too: a private one, with a copy of the guest image, that is made for it.

Prints a table of what went wrong. The exit code is 1 if anything did.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from orchestrator.incus.instances import list_instances
from orchestrator.job.context import Context
from orchestrator.journal import open_journal
from orchestrator.session import reaper
from orchestrator.settings import open_incus
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import Job
from states.outcome import Verdict
from tests.commands import command_lines
from tests.integration.private_daemon import PrivateDaemon, private_daemon

PIKACI = str(Path(sys.executable).with_name("pikaci"))
POLL_SECS = 0.05
ENDINGS = (ev.ResultCollected, ev.Failed, ev.Cancelled, ev.Rejected)


@dataclass(frozen=True)
class Kind:
    """A job, how it must end, and what its log must say."""

    lines: str
    verdict: Verdict
    log: bytes


KINDS = {
    "passes": Kind("command = 'echo a; sleep 1; echo b'", Verdict.PASSED, b"a\nb\n"),
    "fails": Kind("command = 'echo a; sleep 1; exit 3'", Verdict.FAILED, b"a\n"),
    "overruns": Kind(
        "command = '''trap \"exit 1\" TERM; echo a; sleep 600 & wait'''\ntimeout_secs = 2",
        Verdict.TIMED_OUT,
        b"a\n",
    ),
    "prints": Kind(
        "command = 'for n in 1 2 3; do seq 20000; sleep 0.5; done'",
        Verdict.PASSED,
        3 * b"".join(b"%d\n" % n for n in range(1, 20001)),
    ),
    "keeps": Kind(
        "command = 'echo a; echo kept > /artifacts/kept.txt'\nartifacts = ['kept.txt']",
        Verdict.PASSED,
        b"a\n",
    ),
}
# What another `run` on the root brings.
LATER = Kind("", Verdict.PASSED, b"later\n")


@dataclass
class Soak:
    """One soak. `table` counts kills, and what went wrong."""

    base: Path
    jobs: int
    at_once: int
    kills: int
    give_up: float
    dice: random.Random
    incusd: PrivateDaemon | None
    table: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.root = StateRoot(self.base / "root")
        self.workspace = self.base / "workspace"
        self.workspace.mkdir()
        kinds = [list(KINDS)[number % len(KINDS)] for number in range(self.jobs)]
        self.dice.shuffle(kinds)
        entries = [
            # A create or a start whose client was killed is tried again.
            f"[jobs.{kind}-{number}]\nretries = 10\ncpus = 1\n{KINDS[kind].lines}\n"
            for number, kind in enumerate(kinds)
        ]
        (self.workspace / "pikaci.toml").write_text("\n".join(["schema = 1\n", *entries]))

    def run(self) -> None:
        """Live through it; then all that has not ended is resumed, and nobody is killed."""
        pikaci = self._start("run", "--jobs", str(self.at_once))
        while not self._known_jobs() and pikaci.poll() is None:
            time.sleep(POLL_SECS)  # until then nothing was promised
        while unfinished := self._unfinished():
            time.sleep(self.dice.uniform(0.2, 2))
            # Spread over the whole of it: so many kills as jobs have ended, in proportion.
            due = self.kills * (1 + self.jobs - unfinished) / self.jobs
            if sum(self._killed().values()) < due and time.monotonic() < self.give_up:
                victims = ["pikaci", "incus", "incusd"]
                match self.dice.choices(victims, [6, 3, 1 if self.incusd else 0]):
                    case ["pikaci"]:
                        self._kill_pikaci(pikaci)
                    case ["incus"]:
                        self._kill_client()
                    case _:
                        assert self.incusd is not None
                        self.incusd.signal(signal.SIGKILL)
                        self.table["kills of incusd"] += 1
                        self.incusd.start()
            if pikaci.poll() is not None and self._unfinished():
                again = [["resume"], ["run", "--", "echo later"]]
                pikaci = self._start(*self.dice.choices(again, [2, 1])[0])
        pikaci.wait()
        self._start("resume").wait()

    def _start(self, *args: str) -> subprocess.Popen[bytes]:
        with (self.base / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [PIKACI, *args],
                cwd=self.workspace,
                env={**os.environ, "PIKACI_STATE_ROOT": str(self.root.path)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )

    def _kill_pikaci(self, pikaci: subprocess.Popen[bytes]) -> None:
        if self.dice.random() < 0.5:
            pikaci.kill()
            self.table["kills of pikaci"] += 1
        else:
            os.killpg(pikaci.pid, signal.SIGKILL)
            self.table["kills of its group"] += 1
        pikaci.wait()

    def _kill_client(self) -> None:
        """Kill an incus client that works for one of our instances, if there is one now."""
        with open_journal(self.root.journal) as journal:
            names = [lease.instance.encode() for lease in journal.open_leases()]
        clients = [
            pid
            for pid, line in command_lines()
            if line.startswith(b"incus\0") and any(name in line for name in names)
        ]
        if clients:
            with suppress(ProcessLookupError):
                os.kill(self.dice.choice(clients), signal.SIGKILL)
                self.table["kills of incus"] += 1

    def _killed(self) -> dict[str, int]:
        return {what: count for what, count in self.table.items() if what.startswith("kills")}

    def _known_jobs(self) -> int:
        if not self.root.journal.exists():
            return 0
        with open_journal(self.root.journal) as journal:
            return len(journal.jobs())

    def _unfinished(self) -> int:
        with open_journal(self.root.journal) as journal:
            return len(journal.unfinished())

    async def check(self) -> None:
        """Count what went wrong."""
        table = self.table
        with open_journal(self.root.journal) as journal:
            jobs = [journal.job(row.id) for row in journal.jobs()]
            table["jobs"] = len(jobs)
            table["losses"] = self.jobs - sum(job.name != "command" for job in jobs)
            for job in jobs:
                endings = sum(isinstance(e, ENDINGS) for _, e in journal.entries(job.id))
                table["losses"] += endings == 0
                table["duplicates"] += endings > 1
                self._check_job(job)
            context = Context(root=self.root, journal=journal, incus=open_incus())
            there = await list_instances(context.incus)
            leaked = {i.name for i in there if i.config.get(reaper.OWNER) == journal.owner}
            table["leaks"] = len(leaked | {lease.instance for lease in journal.open_leases()})

    def _check_job(self, job: Job) -> None:
        kind = KINDS.get(job.name.partition("-")[0], LATER)
        if job.verdict is not kind.verdict:
            self.table["wrong outcomes"] += 1
            print(f"{job.id} {job.name}: {job.verdict}: {job.failure}", file=sys.stderr)
            return
        assert job.artifacts is not None
        directory = Path(job.artifacts)
        output = (directory / "guest.log").read_bytes().partition(b"\n")[2]
        kept = directory / "artifacts" / "kept.txt"
        if output != kind.log or (kind is KINDS["keeps"] and kept.read_bytes() != b"kept\n"):
            self.table["faults of logs"] += 1
            print(f"{job.id} {job.name}: {len(output)} of {len(kind.log)} bytes", file=sys.stderr)


BAD = ("leaks", "losses", "duplicates", "wrong outcomes", "faults of logs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--kills", type=int, default=100, help="at most so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--secs", type=float, default=3600, help="then nobody is killed any more")
    parser.add_argument("--incusd", action="store_true", help="kill the daemon too, a private one")
    asked = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        daemon = stack.enter_context(private_daemon()) if asked.incusd else None
        if daemon is not None:
            os.environ["INCUS_DIR"] = str(daemon.directory)
        base = stack.enter_context(tempfile.TemporaryDirectory())
        soak = Soak(
            Path(base),
            asked.jobs,
            asked.at_once,
            asked.kills,
            time.monotonic() + asked.secs,
            random.Random(asked.seed),
            daemon,
        )
        soak.run()
        trio.run(soak.check)
    table = soak.table
    for what in ("jobs", *sorted(soak._killed()), *BAD):
        print(f"{what:20}{table[what]:6}")
    print(f"{'seconds':20}{time.monotonic() - began:6.0f}")
    return int(any(table[what] for what in BAD))


if __name__ == "__main__":
    sys.exit(main())
