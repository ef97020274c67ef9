"""The daemon behind the fake: what it remembers, and the guests that run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import trio

from orchestrator.fake_incus import words
from orchestrator.fake_incus.args import Command
from orchestrator.fake_incus.faults import Faults
from orchestrator.fake_incus.guest import Guest, GuestScript
from orchestrator.fake_incus.model import Instance, Store
from orchestrator.fake_incus.words import Refused
from orchestrator.incus import Sink


@dataclass
class Call:
    """One command as the daemon sees it. `write` is its stdout, `errors` its stderr."""

    command: Command
    stdin: bytes
    write: Sink
    errors: bytearray

    async def say(self, text: str) -> None:
        """A line of text on stdout."""
        await self.write(text.encode() + b"\n")


class Daemon:
    """Instances live here: started, stopped, deleted. All else is `store`."""

    def __init__(
        self,
        store: Store,
        *,
        nursery: trio.Nursery,
        now: Callable[[], datetime],
        script: GuestScript,
        faults: Faults,
    ) -> None:
        self.store = store
        self.alive = True
        self.now = now
        self.faults = faults
        self.script = script
        self._nursery = nursery
        self._guests: dict[tuple[str, str], Guest] = {}  # {(project, name): its inside}

    def start(self, instance: Instance) -> Guest:
        """Start a stopped instance."""
        _, devices = self.store.expanded(instance)
        instance.status = "Running"
        guest = Guest(
            instance,
            devices,
            nursery=self._nursery,
            now=self.now,
            script=self.script,
            faults=self.faults,
            power_off=lambda: self.stop(instance),
        )
        self._guests[instance.project, instance.name] = guest
        return guest

    def guest(self, instance: Instance) -> Guest:
        """The inside of a running instance; `Refused` when it does not run."""
        if instance.status != "Running":
            raise Refused(words.NOT_RUNNING)
        known = self._guests.get((instance.project, instance.name))
        return known or self.start(instance)  # it ran before this daemon did

    def stop(self, instance: Instance) -> None:
        """Stop an instance by force: its processes are dead when this returns."""
        instance.status = "Stopped"
        guest = self._guests.pop((instance.project, instance.name), None)
        if guest is not None:
            guest.kill()

    def delete(self, instance: Instance) -> None:
        """Delete an instance, running or not."""
        self.stop(instance)
        del self.store.project(instance.project).instances[instance.name]


def local(resource: str) -> str:
    """A resource's name without its remote, of which there is one."""
    remote, colon, name = resource.partition(":")
    if colon and remote != "local":
        raise Refused(f'The remote "{remote}" doesn\'t exist')
    return name if colon else resource
