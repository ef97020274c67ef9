"""Looks names up for the connections of one job, each name once for many connections.

npm and uv open dozens of connections to one host at a time. As many questions at once are more than
some resolvers answer: they fail for now (EAI_AGAIN), and the download with them.
"""

from __future__ import annotations

import ipaddress
import os
import socket

import trio

from orchestrator.egress.errors import NoConnection, TooLate
from states.egress import Address

RESOLVE_SECS = 20.0
MOST_ADDRESSES = 8
# As short as the shortest times that names are given in practice.
KEPT_SECS = 30.0
MOST_KEPT = 256


class Resolver:
    """Names and their addresses, kept for `KEPT_SECS`; failures are not kept."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

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
                        known.addresses = await _look_up(host, port, name)
                        known.until = trio.current_time() + KEPT_SECS
        except trio.TooSlowError:
            raise TooLate(f"{name} was not resolved within {RESOLVE_SECS:g} s") from None
        return known.addresses


class _Known:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.until = float("-inf")
        self.addresses: list[Address] = []


async def _look_up(host: str, port: int, name: str) -> list[Address]:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
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


def words(error: Exception) -> str:
    """What an error of a socket or a resolver says, in ASCII."""
    # trio's words repeat the address; a resolver's errors have numbers of their own.
    number = error.errno if isinstance(error, OSError) else None
    text = os.strerror(number) if number and number > 0 else _strerror(error)
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _strerror(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
