"""The daemon behind the fake: its state, and the running guests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import trio

from orchestrator.fake_incus import words
from orchestrator.fake_incus.args import Command
from orchestrator.fake_incus.faults import Faults
from orchestrator.fake_incus.guest import Guest, GuestScript
from orchestrator.fake_incus.model import READY_KEY, Instance, Store
from orchestrator.fake_incus.process import Input
from orchestrator.fake_incus.words import Refused
from orchestrator.incus import Sink

BOOT_SECS = 5.0  # until a VM's agent runs


@dataclass
class Call:
    """One command as the daemon sees it. `write` is its stdout, `errors` its stderr."""

    command: Command
    stdin: Input
    write: Sink
    errors: bytearray

    async def say(self, text: str) -> None:
        """Write a line of text to stdout."""
        await self.write(text.encode() + b"\n")


class Daemon:
    """Starts, stops and deletes instances. Everything else is in `store`."""

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
        self._guests: dict[tuple[str, str], Guest] = {}  # by (project, name)
        self._listeners: set[trio.MemorySendChannel[bytes]] = set()

    async def listen(self, project: str, sink: Sink) -> None:
        """Write the project's events to the sink, forever: one per line, then an empty line."""
        send, receive = trio.open_memory_channel[bytes](math.inf)
        self._listeners.add(send)
        try:
            async for event in receive:
                if json.loads(event)["project"] == project:
                    await sink(event + b"\n\n")
        finally:
            self._listeners.discard(send)

    def tell(self, action: str, instance: Instance) -> None:
        """Send all listeners an event about an instance."""
        source = f"/1.0/instances/{instance.name}?project={instance.project}"
        event = {
            "type": "lifecycle",
            "project": instance.project,
            "timestamp": self.now().isoformat(),
            "metadata": {
                "action": action,
                "source": source,
                "name": instance.name,
                "project": instance.project,
            },
        }
        for listener in self._listeners:
            listener.send_nowait(json.dumps(event).encode())

    def start(self, instance: Instance) -> None:
        """Start a stopped instance. A VM boots first; then its guest announces itself."""
        instance.config[READY_KEY] = "false"
        guest = self._started(instance)
        self.tell("instance-started", instance)
        if not guest.takes_exec:
            self._nursery.start_soon(self._boot, instance, guest)

    async def _boot(self, instance: Instance, guest: Guest) -> None:
        await trio.sleep(BOOT_SECS)
        if self._guests.get((instance.project, instance.name)) is guest:
            guest.takes_exec = True
            instance.config[READY_KEY] = "true"
            self.tell("instance-ready", instance)

    def _started(self, instance: Instance) -> Guest:
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
        """The guest of a running instance; `Refused` if it does not run, or takes no exec."""
        if instance.status != "Running":
            raise Refused(words.NOT_RUNNING)
        guest = self._guests.get((instance.project, instance.name))
        if guest is None:  # it was started before this daemon
            guest = self._started(instance)
            guest.takes_exec = True
        if not guest.takes_exec:
            raise Refused(words.AGENT_AWAY)
        return guest

    def start_agent(self, instance: Instance) -> None:
        """Start the agent of a running VM, so that it takes execs."""
        self._guests[instance.project, instance.name].takes_exec = True

    def stop(self, instance: Instance) -> None:
        """Stop an instance by force; its processes are dead when this returns."""
        if instance.status == "Running":
            self.tell("instance-stopped", instance)
        instance.status = "Stopped"
        guest = self._guests.pop((instance.project, instance.name), None)
        if guest is not None:
            guest.kill()
        if instance.ephemeral:
            self._remove(instance)

    def delete(self, instance: Instance) -> None:
        """Delete an instance, running or not."""
        self.stop(instance)
        if not instance.ephemeral:
            self._remove(instance)

    def _remove(self, instance: Instance) -> None:
        del self.store.project(instance.project).instances[instance.name]
        self.tell("instance-deleted", instance)


def local(resource: str) -> str:
    """A resource's name without its remote; only `local` exists."""
    remote, colon, name = resource.partition(":")
    if colon and remote != "local":
        raise Refused(f'The remote "{remote}" doesn\'t exist')
    return name if colon else resource
