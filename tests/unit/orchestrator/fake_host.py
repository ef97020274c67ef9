"""The calls of one job, as the orchestrator makes them, on a fake Incus."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from orchestrator.contract import contract
from orchestrator.fake_incus import (
    FINGERPRINT,
    FakeIncus,
)
from orchestrator.incus import Completed, Incus
from tests.calls import call

RUNNER = contract().runner
NONCE = "n0nce"
DOCUMENT = json.dumps(
    {
        "config": {"user.pikaci.owner": "test-fake"},
        "devices": {
            "root": {"type": "disk", "path": "/", "pool": "pikaci"},
            "pikaci-snapshot": {
                "type": "disk",
                "source": "/usr",
                "path": "/workspace/snapshot",
                "readonly": "true",
                "shift": "true",
            },
        },
        "profiles": [],
    }
).encode()


class Host:
    """The calls of one job, as the orchestrator makes them."""

    def __init__(self, fake: FakeIncus, conf: Path) -> None:
        self.fake = fake
        self.incus = Incus(conf, spawn=fake)

    async def boot(self, name: str) -> None:
        await call(
            self.incus,
            "create",
            "-q",
            f"local:{FINGERPRINT}",
            f"local:{name}",
            stdin=DOCUMENT,
            deadline_secs=9,
        )
        await call(self.incus, "start", "-q", f"local:{name}", deadline_secs=9)

    async def exec(self, name: str, *argv: str, **options: Any) -> Completed:
        options.setdefault("deadline_secs", 1000)
        return await call(
            self.incus,
            "exec",
            "-q",
            "--force-noninteractive",
            "-T",
            f"local:{name}",
            "--",
            *argv,
            **options,
        )

    async def ready(self, name: str) -> Completed:
        script = ("sh", "-c", "wait", "pikaci-ready", "20", RUNNER, "", "/workspace/snapshot")
        return await self.exec(name, *script, check=False)

    async def job(self, name: str, text: str, timeout_secs: int = 60, **options: Any) -> Completed:
        variables = (
            f"PIKACI_INCUS_GUEST_COMMAND={text}",
            f"PIKACI_INCUS_TIMEOUT_SECS={timeout_secs}",
            "PIKACI_INCUS_RUN_AS_ROOT=0",
        )
        stdin = f"SECRET=s3cret\0PIKACI_INCUS_NONCE={NONCE}\0".encode()
        return await self.exec(name, "env", *variables, RUNNER, stdin=stdin, check=False, **options)

    async def collected(self, name: str, expression: str = "none") -> dict[str, bytes]:
        pack = ("sh", "-c", "pack", "pikaci-collect", "/artifacts", expression)
        done = await self.exec(name, *pack, "./result.json", "./guest.log")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            return {
                member.name.removeprefix("./"): archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
            }

    async def result(self, name: str) -> Any:
        return json.loads((await self.collected(name))["result.json"])
