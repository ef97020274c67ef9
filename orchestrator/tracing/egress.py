"""What a job reached outside, from its entries: by host, and the shortest `egress` for it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec

from states import events as ev
from states.egress import Rules, authority, refused_kind, shortest

MANY = "*"  # the host of a sum over many


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The connections to a host's port; `name` is `HOST:PORT`, "" for what was no request.

    `refused` of them were against the rules. `reason` is the last one's that came to nothing.
    `proxy` is the host's own proxy, through which they went.
    """

    name: str
    connections: int
    refused: int
    sent_bytes: int
    received_bytes: int
    secs: float
    reason: str = ""
    proxy: str = ""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Time without a way out, in seconds, None if it is not known; connections that it harmed."""

    secs: float | None
    cut: int
    late: int


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """What a job with `egress` reached.

    `shortest` is the shortest `egress` that would have done, `with_refused` the one that would also
    have allowed what was refused. `partial`: there were too many hosts to name all.
    """

    hosts: tuple[Host, ...]
    gaps: tuple[Gap, ...]
    shortest: tuple[str, ...]
    with_refused: tuple[str, ...]
    partial: bool = False

    @property
    def connections(self) -> int:
        return sum(host.connections for host in self.hosts)

    @property
    def refused(self) -> int:
        return sum(host.refused for host in self.hosts)

    @property
    def sent_bytes(self) -> int:
        return sum(host.sent_bytes for host in self.hosts)

    @property
    def received_bytes(self) -> int:
        return sum(host.received_bytes for host in self.hosts)


def egress(
    rules: Iterable[str], connections: Iterable[ev.Connected], gaps: Iterable[ev.EgressGap]
) -> Egress:
    """Sum up the connections of a job with these rules."""
    hosts: dict[str, Host] = {}
    allowed: set[tuple[str, int]] = set()
    refused: set[tuple[str, int]] = set()
    partial = False
    named = Rules(rules)
    for one in connections:
        name = authority(one.host, one.port) if one.host else ""
        partial = partial or one.host == MANY
        hosts[name] = _added(hosts.get(name), name, one)
        if one.host and one.host != MANY:
            if one.refused:
                refused |= _places(one, named)
            elif one.address or one.proxy:  # else it was not reached
                allowed |= _places(one, named)
    return Egress(
        hosts=tuple(sorted(hosts.values(), key=lambda host: (-host.received_bytes, host.name))),
        gaps=tuple(
            Gap(secs=gap.duration_ms / 1000 if gap.known else None, cut=gap.cut, late=gap.late)
            for gap in gaps
        ),
        shortest=shortest(allowed),
        with_refused=shortest(allowed | refused),
        partial=partial,
    )


def _added(host: Host | None, name: str, one: ev.Connected) -> Host:
    host = host or Host(
        name=name, connections=0, refused=0, sent_bytes=0, received_bytes=0, secs=0.0
    )
    return msgspec.structs.replace(
        host,
        connections=host.connections + one.count,
        refused=host.refused + (one.count if one.refused else 0),
        sent_bytes=host.sent_bytes + one.sent_bytes,
        received_bytes=host.received_bytes + one.received_bytes,
        secs=host.secs + one.duration_ms / 1000,
        reason=one.reason or host.reason,
        proxy=one.proxy or host.proxy,
    )


def _places(one: ev.Connected, named: Rules) -> set[tuple[str, int]]:
    """What must be allowed for it: the host, and an inner address that it leads to."""
    places = {(one.host, one.port)}
    if one.address:
        try:
            address = ipaddress.ip_address(one.address)
        except ValueError:
            return places
        if one.refused or refused_kind(address) or named.name_address(address, one.port):
            places.add((str(address), one.port))
    return places
