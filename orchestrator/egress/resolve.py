"""Looks names up for the connections of one job, each name once for many connections.

npm and uv open dozens of connections to one host at a time. As many questions at once are more than
some resolvers answer: they fail for now (EAI_AGAIN), and the download with them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from orchestrator.egress.errors import NoConnection, TooLate
from states.egress import Address, address_of

RESOLVE_SECS = 20.0
MOST_ADDRESSES = 8
# As short as the shortest times that names are given in practice.
KEPT_SECS = 30.0
MOST_KEPT = 256
# Names that are looked up at a time. A thread for each: one that its nameserver does not answer
# keeps it for longer than anybody waits, and the process's other threads are for all jobs.
MOST_AT_ONCE = 8

Ask = Callable[[str, int], Awaitable[list[Any]]]  # what `getaddrinfo` returns, and may raise


class Resolver:
    """Names and their addresses, kept for `KEPT_SECS`; failures are not kept.

    `ask` asks for them, by default this system's resolver.
    """

    def __init__(self, ask: Ask | None = None) -> None:
        self._known: dict[str, _Known] = {}
        self._ask = ask or partial(_ask, trio.CapacityLimiter(MOST_AT_ONCE))

    async def resolve(self, host: str, port: int, name: str) -> list[Address]:
        """The addresses of a host, at least one and at most `MOST_ADDRESSES`.

        `name` is what errors call it. Raises `NoConnection`, after `RESOLVE_SECS` `TooLate`.
        """
        known = self._known.pop(host, None) or _Known()
        self._known[host] = known  # the last one used is the last one in it
        while len(self._known) > MOST_KEPT:
            del self._known[next(iter(self._known))]
        try:
            with trio.fail_after(RESOLVE_SECS):
                async with known.lock:
                    if trio.current_time() >= known.until:
                        known.addresses = await self._look_up(host, port, name)
                        known.until = trio.current_time() + KEPT_SECS
        except trio.TooSlowError:
            raise TooLate(f"{name} was not resolved within {RESOLVE_SECS:g} s") from None
        return known.addresses

    async def _look_up(self, host: str, port: int, name: str) -> list[Address]:
        if (literal := address_of(host)) is not None:
            return [literal]
        try:
            found = await self._ask(host, port)
        except (OSError, UnicodeError) as error:
            raise NoConnection(f"{name} cannot be resolved: {words(error)}") from None
        addresses = [
            ipaddress.ip_address(str(where[0]).partition("%")[0])
            for family, _, _, _, where in found
            if family in (socket.AF_INET, socket.AF_INET6)
        ]
        if not addresses:
            raise NoConnection(f"{name} has no address")
        return list(dict.fromkeys(addresses))[:MOST_ADDRESSES]


class _Known:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.until = float("-inf")
        self.addresses: list[Address] = []


async def _ask(threads: trio.CapacityLimiter, host: str, port: int) -> list[Any]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=threads)


def words(error: Exception) -> str:
    """What an error of a socket or a resolver says, in ASCII."""
    # trio's words repeat the address; a resolver's errors have numbers of their own.
    number = error.errno if isinstance(error, OSError) else None
    text = os.strerror(number) if number and number > 0 else _strerror(error)
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _strerror(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
