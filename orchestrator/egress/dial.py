"""Connects to a host, if the rules allow it: the address that was checked is the one connected to.

Where the host itself goes out through a proxy, that one resolves names, and only names are checked.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass

import trio

from orchestrator.egress.errors import NoConnection, Refused, TooLate
from orchestrator.egress.host_proxy import HostProxies, HostProxy
from orchestrator.egress.own_addresses import own_kind
from orchestrator.egress.resolve import Resolver, words
from states.egress import PRIVATE, Address, Rules, address_of, authority, embedded, refused_kind

CONNECT_SECS = 30.0


@dataclass(frozen=True)
class Target:
    """A host in its plain form, and a port; `tunnel`: it was asked for by CONNECT."""

    host: str
    port: int
    tunnel: bool

    def __str__(self) -> str:
        return authority(self.host, self.port)


class Dialer:
    """Makes the connections of one job; `key` names its rules to people (`jobs.deps.egress`).

    `mirrors` are places of the host's own settings: they may have private addresses.
    """

    def __init__(
        self, rules: Rules, proxies: HostProxies, key: str, *, mirrors: Collection[str] = ()
    ) -> None:
        self._rules = rules
        self._mirrors = frozenset(mirrors)
        self._proxies = proxies
        self._key = key
        self._resolver = Resolver()

    def check(self, target: Target) -> HostProxy | None:
        """The host's proxy for an allowed target, None for none. Raises `Refused`."""
        if str(target) not in self._mirrors and not self._rules.allow(target.host, target.port):
            raise Refused(f"egress to {target} is not allowed by {self._key}")
        if (literal := address_of(target.host)) is not None:
            self._check_address(target, literal)
        return self._proxies.of(target.host, tunnel=target.tunnel)

    async def connect(self, target: Target) -> trio.SocketStream:
        """A connection to a target that passed `check`, without a proxy. Raises `NoConnection`."""
        allowed: list[Address] = []
        refused: list[NoConnection] = []
        for address in await self._resolver.resolve(target.host, target.port, str(target)):
            try:
                self._check_address(target, address)
            except Refused as error:
                refused.append(error)
            else:
                allowed.append(address)
        if not allowed:
            raise refused[0]
        return await _connect(allowed, target.port, str(target))

    async def connect_to_proxy(self, proxy: HostProxy) -> trio.SocketStream:
        """A connection to the host's own proxy. Raises `NoConnection`."""
        name = f"the host's proxy {proxy}"
        addresses = await self._resolver.resolve(proxy.host, proxy.port, name)
        return await _connect(addresses, proxy.port, name)

    def _check_address(self, target: Target, address: Address) -> None:
        if self._rules.name_address(address, target.port):
            return
        for one in (address, *embedded(address)):
            kind = own_kind(one) or refused_kind(one)
            if kind and not (kind in PRIVATE and str(target) in self._mirrors):
                leads = "" if address_of(target.host) else f"{address} is "
                raise Refused(
                    f"egress to {target} is not allowed: {leads}{kind}"
                    f" that {self._key} does not name",
                    address=str(address),
                )


async def _connect(addresses: list[Address], port: int, name: str) -> trio.SocketStream:
    failure: NoConnection = NoConnection(f"{name} cannot be reached")
    for number, address in enumerate(addresses, start=1):
        last = number == len(addresses)
        try:
            with trio.fail_after(CONNECT_SECS if last else CONNECT_SECS / len(addresses)):
                return await _connect_to(address, port)
        except trio.TooSlowError:
            failure = TooLate(f"{name} cannot be reached: {address} does not answer")
        except OSError as error:
            failure = NoConnection(f"{name} cannot be reached: {words(error)}")
    raise failure


# What the kernel takes for a server beyond what is on its way there. Otherwise it is up to 4 MiB of
# the host's memory for each server that takes nothing.
UNSENT_BYTES = 1 << 17


async def _connect_to(address: Address, port: int) -> trio.SocketStream:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connecting = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        # Numeric: nothing is resolved a second time.
        await connecting.connect((str(address), port))
    except BaseException:
        connecting.close()
        raise
    return trio.SocketStream(connecting)
