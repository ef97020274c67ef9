"""Names are looked up once for many connections."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.egress.errors import NoConnection, TooLate
from orchestrator.egress.resolve import (
    KEPT_SECS,
    MOST_AT_ONCE,
    MOST_KEPT,
    RESOLVE_SECS,
    Resolver,
)


class Server:
    """Answers after a second; fails for now if it is asked more than one thing at a time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.secs = 1.0
        self._busy = False

    async def ask(self, host: str, port: int) -> list[Any]:
        self.asked.append(host)
        if self._busy:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        self._busy = True
        try:
            await trio.sleep(self.secs)
        finally:
            self._busy = False
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def server() -> Server:
    return Server()


async def test_many_connections_at_a_time_ask_once(
    server: Server, autojump_clock: MockClock
) -> None:
    """As a package manager opens them; and later ones do not ask for a while."""
    resolver = Resolver(server.ask)
    found = []

    async def resolve() -> None:
        found.append(await resolver.resolve("a.example", 443, "a"))

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(resolve)
    await resolve()

    assert ["a.example"] == server.asked
    assert [["192.0.2.1"]] * 41 == [[str(one) for one in addresses] for addresses in found]
    await trio.sleep(KEPT_SECS)
    await resolve()
    assert ["a.example"] * 2 == server.asked


async def test_a_failure_is_not_kept(server: Server, autojump_clock: MockClock) -> None:
    """The next connection asks anew, also after a time-out."""
    resolver = Resolver(server.ask)
    server._busy = True
    with pytest.raises(NoConnection, match="a cannot be resolved: Temporary failure"):
        await resolver.resolve("a.example", 443, "a")
    server._busy, server.secs = False, RESOLVE_SECS + 1
    with pytest.raises(TooLate, match="not resolved within 20 s"):
        await resolver.resolve("a.example", 443, "a")
    server.secs = 1

    assert ["192.0.2.1"] == [str(one) for one in await resolver.resolve("a.example", 443, "a")]


async def test_a_bounded_number_of_names_is_kept(server: Server, autojump_clock: MockClock) -> None:
    """The one that was not used for longest is dropped."""
    resolver = Resolver(server.ask)
    for number in range(MOST_KEPT + 1):
        await resolver.resolve(f"{number}.example", 443, "it")
        await resolver.resolve("often.example", 443, "it")
        await trio.sleep(0)

    assert MOST_KEPT == len(resolver._known)
    assert "often.example" in resolver._known
    assert "0.example" not in resolver._known


async def test_names_without_an_answer_take_no_thread_of_other_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many a job asks for, and also when it gave up: its thread is still waiting then."""
    answered = threading.Event()
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        answered.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver()
    everybody = trio.to_thread.current_default_thread_limiter()
    try:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(resolver.resolve, f"{number}.example", 443, "it")
            with trio.fail_after(20):
                while len(asked) < MOST_AT_ONCE:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert 0 == everybody.borrowed_tokens
        with trio.move_on_after(0.2):
            await resolver.resolve("one.more.example", 443, "it")
        assert MOST_AT_ONCE == len(asked)
        assert [["192.0.2.1"]] == [
            [str(one) for one in await resolver.resolve("192.0.2.1", 443, "it")]
        ]
    finally:
        answered.set()
