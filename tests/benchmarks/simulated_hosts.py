"""A cluster of many members in one process, as the incus command shows it.

Every call takes the time that was measured on a real Incus. Members die with their guests, one after
the other, and come back. The daemon behind it all is the fake one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from orchestrator.attempt.id_map import MAP_SIZE
from orchestrator.fake_incus import FakeIncus, GuestCommand, GuestOutcome
from orchestrator.fake_incus.args import parse
from orchestrator.hosts.settings import HostSettings
from orchestrator.incus import Completed, Host
from tests.unit.orchestrator.fake_cluster import FakeCluster

NAME, SLOTS = "cluster", 4  # jobs of a member
# Seconds, of a daemon with one guest at work. The program of an exec takes its own time.
CALL_SECS = {"launch": 0.244, "exec": 0.06, "delete": 0.648}
OTHER_SECS = 0.02
JOB_SECS = 60.0
FAILS = 0.02  # of the jobs
LINES = 20
AWAY_SECS = 300.0


async def work(command: GuestCommand) -> GuestOutcome:
    """A job: some lines over about a minute, and now and then a failure."""
    chance = random.Random(command.instance)
    secs = min(chance.expovariate(1 / JOB_SECS), 600.0)
    for number in range(LINES):
        command.print(b"line %d of a job that prints like others do\n" % number)
        await trio.sleep(secs / LINES)
    return GuestOutcome(exit_code=int(chance.random() < FAILS))


def write_settings(file: Path, shared: Path) -> Host:
    """Write the settings of the cluster, whose members share a directory; returns it as a host."""
    file.write_text(f'[hosts.{NAME}]\nremote = "local"\nshared = "{shared}"\njobs = {SLOTS}\n')
    return HostSettings(remote="local", shared=str(shared), jobs=SLOTS).host(NAME)


class SimulatedHosts(FakeCluster):
    """A `Spawn`. `calls` counts what was asked, by verb, and `deaths` the members that died."""

    def __init__(self, fake: FakeIncus, members: int) -> None:
        super().__init__(fake, *(f"m{number}" for number in range(members)))
        self.calls: Counter[str] = Counter()
        self.deaths = 0
        self._chance = random.Random(1)

    async def let_members_die(self, every_secs: float) -> None:
        """One after the other, at any time; never returns."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._chance.uniform(0.5, 1.5) * every_secs)
                nursery.start_soon(self._die, self._chance.choice([*self.status]))

    async def _die(self, member: str) -> None:
        if self.status[member] != "Online":
            return
        self.deaths += 1
        guests = self.fake.instances()
        for name in [name for name, there in self.at.items() if there == member]:
            if name in guests and guests[name].status == "Running":
                self.fake.stop_guest(name)
        await self.fall_silent(member)
        await trio.sleep(AWAY_SECS)
        self.come_back(member)

    async def __call__(self, argv: Sequence[str], *, stdin: Any, **options: Any) -> Completed:
        words = [word for word in argv[1:] if not word.startswith("--target=")]
        command = parse(words)
        self.calls[command.verb] += 1
        number = self.calls[command.verb]
        secs = CALL_SECS.get(command.verb, OTHER_SECS)
        await trio.sleep(secs * self._chance.uniform(0.8, 1.5))
        if command.verb == "launch":
            # Ids that no other guest has: the fake would give the same to all.
            document = json.loads(stdin)
            document["config"]["security.idmap.base"] = str(MAP_SIZE * number)
            stdin = json.dumps(document).encode()
        done = await super().__call__(argv, stdin=stdin, **options)
        if command.verb == "delete":
            self.at.pop(command.args[0].rpartition(":")[2], None)
        return done
