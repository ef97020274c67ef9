"""Several hosts in front of fakes: each remote is an Incus of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.fake_incus import FakeIncus, GuestScript, run_handful
from orchestrator.hosts.settings import VARIABLE
from orchestrator.incus import Completed
from tests.unit.orchestrator.fake_cluster import answer


class FakeHosts:
    """Starts the commands of several hosts, as `Spawn`. Each has the image `pikaci/dev`.

    `creates` are the hosts on which an instance was asked for. One that is `silent` answers nothing;
    `hanging` is how many commands wait for such a host. Those in `clusters` say that they are one.
    """

    def __init__(self, fakes: dict[str, FakeIncus]) -> None:
        self.fakes = fakes
        self.creates: list[str] = []
        self.silent: set[str] = set()
        self.hanging = 0
        self.clusters: set[str] = set()

    def __getitem__(self, host: str) -> FakeIncus:
        return self.fakes[host]

    async def __call__(self, argv: Sequence[str], *, sink: Any, **options: Any) -> Completed:
        argv = tuple(argv)
        there = next((word.partition(":")[0] for word in argv if _remote(word) in self.fakes), "")
        if there in self.silent:
            self.hanging += 1
            try:
                await trio.sleep_forever()
            finally:
                self.hanging -= 1
        if argv[-1].partition("?")[0] == f"{there}:/1.0/cluster":
            return await answer(argv, sink, {"enabled": there in self.clusters})
        if argv[1] == "launch":
            self.creates.append(there)
        same = [
            f"local:{word.partition(':')[2]}" if _remote(word) == there else word for word in argv
        ]
        return await self.fakes[there](same, sink=sink, **options)


def _remote(word: str) -> str:
    return word.partition(":")[0] if ":" in word else ""


@asynccontextmanager
async def open_fake_hosts(
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    *names: str,
    guest_script: GuestScript = run_handful,
    **keys: str,
) -> AsyncIterator[FakeHosts]:
    """Hosts of these names, which share the directory `base`, beside the local one.

    `keys` are other lines of a host's settings, by its name.
    """
    path = base / "hosts.toml"
    path.write_text(
        "".join(
            f'[hosts.{name}]\nremote = "{name}"\nshared = "{base}"\n{keys.get(name, "")}\n'
            for name in names
        )
    )
    monkeypatch.setenv(VARIABLE, str(path))
    # The sizes of hosts are remembered there, for all processes of the user.
    monkeypatch.setenv("XDG_STATE_HOME", str(base / "state"))
    async with AsyncExitStack() as stack:
        fakes = {
            name: await stack.enter_async_context(FakeIncus.open(guest_script=guest_script))
            for name in ("local", *names)
        }
        yield FakeHosts(fakes)
