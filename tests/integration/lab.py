"""One Incus of three kinds for a test: the fake, its program, a real daemon."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import Plan
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Completed, Incus, Spawn, spawn_process
from orchestrator.incus.errors import IncusError, InstanceNotFound
from tests.calls import call
from tests.integration.running import SLIM

PROJECT = "pikaci"
IMAGE = "pikaci/dev"
SECS = 60.0
ROOT = {"type": "disk", "path": "/", "pool": "pikaci"}


def disk(source: str, path: str, **more: str) -> dict[str, str]:
    return {"type": "disk", "source": source, "path": path, **more}


@dataclass
class Lab:
    """One Incus, and the instances that a test makes in it."""

    incus: Incus
    spawn: Spawn = spawn_process
    owner: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")
    made: list[str] = field(default_factory=list)
    slim: str = ""
    """What makes a real guest small, before it becomes an image."""

    def name(self, suffix: str = "") -> str:
        """A new instance's name; whatever then has it is deleted when the test ends."""
        self.made.append(f"{self.owner}-{len(self.made)}{suffix}")
        return self.made[-1]

    async def run(self, *args: str, **options: Any) -> Completed:
        return await call(self.incus, *args, deadline_secs=SECS, **options)

    def in_project(self, project: str) -> Incus:
        """The same Incus, in another project."""
        ours = self.incus
        return Incus(ours.conf, project=project, program=ours.program, spawn=self.spawn)

    async def create(
        self,
        name: str,
        *,
        image: str = IMAGE,
        flags: Sequence[str] = ("--no-profiles",),
        **document: Any,
    ) -> Completed:
        config = {"user.pikaci.owner": self.owner, **document.pop("config", {})}
        devices = {"root": ROOT, **document.pop("devices", {})}
        devices = {device: keys for device, keys in devices.items() if keys is not None}
        stdin = json.dumps({"config": config, "devices": devices, **document}).encode()
        names = (f"local:{image}", f"local:{name}")
        return await self.run("create", "--quiet", *flags, *names, stdin=stdin)

    async def create_stopped(self, plan: Plan) -> None:
        """What pikaci's own create makes of a plan, without its start."""
        _, *rest = commands.create(plan).args
        await self.run("create", *rest, stdin=commands.create_document(plan))

    async def started(self, **document: Any) -> str:
        name = self.name()
        await self.create(name, **document)
        await self.run("start", "--quiet", f"local:{name}")
        return name

    async def exec(self, name: str, *argv: str, **options: Any) -> Completed:
        return await self.run(
            "exec", "--force-noninteractive", f"local:{name}", "--", *argv, check=False, **options
        )

    async def query(self, path: str, *flags: str, **parameters: str) -> Any:
        asked = "&".join(
            f"{key}={value}" for key, value in {"project": PROJECT, **parameters}.items()
        )
        done = await call(
            self.incus,
            "query",
            *flags,
            f"local:{path}?{asked}",
            deadline_secs=SECS,
            in_project=False,
        )
        return json.loads(done.stdout) if done.stdout else None

    async def instance(self, name: str) -> Any:
        return await self.query(f"/1.0/instances/{name}")

    async def clean_up(self) -> None:
        with trio.CancelScope(shield=True):
            for name in self.made:
                try:
                    await self.run("delete", "--quiet", "--force", f"local:{name}")
                except InstanceNotFound:
                    pass


REAL = pytest.param("real", marks=pytest.mark.incus)
# The program is the object with a memory on disk, and starts slowly: a few tests are enough.
on_the_program_too = pytest.mark.parametrize("lab", ["object", "program", REAL], indirect=True)


@pytest.fixture(params=["object", REAL])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    """A lab on each kind of Incus; on the real one it leaves nothing behind."""
    conf = tmp_path / "conf"
    if request.param == "object":
        async with FakeIncus.open() as fake:
            yield Lab(Incus(conf, project=PROJECT, spawn=fake), fake)
        return
    if request.param == "program":
        program = tmp_path / "incus"
        state = tmp_path / "fake"
        program.write_text(
            f"#!/bin/sh\nPIKACI_FAKE_INCUS_DIR='{state}'"
            f" exec '{sys.executable}' -m orchestrator.fake_incus \"$@\"\n"
        )
        program.chmod(0o755)
        yield Lab(Incus(conf, project=PROJECT, program=str(program)))
        return
    lab = Lab(Incus(conf, project=PROJECT), slim=f"bash -c '{SLIM}'; ")
    try:
        yield lab
    finally:
        await lab.clean_up()


def said(error: pytest.ExceptionInfo[IncusError]) -> str:
    """The daemon's own words in an error."""
    return error.value.brief.partition(" failed: ")[2]
