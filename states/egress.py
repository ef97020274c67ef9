"""Which hosts a job may reach by name, and which addresses no name may lead to.

A rule of the key `egress` is `HOST`, `*.HOST` or `*`, each also with `:PORT`. A rule without a port
allows the ports 80 and 443; `*` alone allows every port. Pure: nothing here resolves a name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator

import msgspec

from states.errors import SpecError

MAX_RULES = 200
WEB_PORTS = (80, 443)
ALLOWED_RULES = (
    "HOST, *.HOST or HOST:PORT, an address, or * for every public address; for example"
    ' ["pypi.example", "*.debian.example", "10.1.2.3:8080"]'
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# The last label must not look like a part of an address: `127.1`, `0x7f.1` and `2130706433` are
# addresses to most resolvers.
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!(?:[0-9]+|0x[0-9a-f]*)\Z){_LABEL}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")

# What a network of machines has among itself.
PRIVATE = ("a private address", "an address of a carrier's network")
# Where a public name must not lead (IANA's special-purpose registries, RFC 6890). Ranges for
# documentation are not here: machines in test networks have such addresses.
_REFUSED = tuple(
    (ipaddress.ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "an address of this network"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "an address of a carrier's network"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.168.0.0/16", "a private address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "an address of this host"),
        ("::1/128", "a loopback address"),
        ("64:ff9b:1::/48", "a private address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
    )
)
# IPv6 networks whose addresses contain an IPv4 address; the bits to the right of it.
_EMBEDDING = tuple(
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (
        ("::ffff:0:0/96", 0),  # mapped
        ("::/96", 0),  # compatible
        ("::ffff:0:0:0/96", 0),  # translated
        ("64:ff9b::/96", 0),  # NAT64
        ("2002::/16", 80),  # 6to4
    )
)
_TEREDO = ipaddress.IPv6Network("2001::/32")


def address_of(host: str) -> Address | None:
    """The address that a host is written as, IPv6 with or without brackets; None for a name."""
    try:
        return ipaddress.ip_address(host[1:-1] if re.fullmatch(r"\[.*\]", host) else host)
    except ValueError:
        return None


def plain_host(host: str) -> str:
    """The one form of a host's name or address: lower case, no dot at its end; "" if it is neither.

    Text that a resolver would take for an address in an unusual form is neither.
    """
    if (address := address_of(host)) is not None:
        # A zone (`fe80::1%eth0`) names an interface of this machine.
        return "" if "%" in host else str(address)
    name = host.lower().removesuffix(".")
    return name if len(name) <= 253 and _NAME.fullmatch(name) else ""


def refused_kind(address: Address) -> str:
    """What kind of address this is, if no public name may lead there; "" for a public one."""
    for one in (address, *embedded(address)):
        for network, what in _REFUSED:
            if one.version == network.version and one in network:
                return what
    return ""


def embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to, where the network translates it."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    for network, shift in _EMBEDDING:
        # Not `::` and `::1`, which are in ::/96 too.
        if address in network and number > 1:
            yield ipaddress.IPv4Address(number >> shift & 0xFFFFFFFF)
    if address in _TEREDO:  # the client's address has all its bits inverted (RFC 4380)
        yield ipaddress.IPv4Address(~number & 0xFFFFFFFF)


class Rule(msgspec.Struct, frozen=True):
    """One entry of `egress`. `host` is "*", `*.NAME`, a name or an address, as `plain_host`.

    `port` is None for the default ports.
    """

    host: str
    port: int | None = None

    def allows(self, host: str, port: int) -> bool:
        """Whether this rule allows a host, in its plain form, at this port."""
        if self.host == "*":
            return self.port in (None, port)
        if self.port != port and (self.port is not None or port not in WEB_PORTS):
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return host == self.host


class Rules:
    """The rules of one job. `texts` must have passed `check_egress`."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._rules = [rule for text in texts if isinstance(rule := parse_rule(text), Rule)]

    def allow(self, host: str, port: int) -> bool:
        """Whether a rule allows this host, in its plain form, at this port."""
        return any(rule.allows(host, port) for rule in self._rules)

    def name_address(self, address: Address, port: int) -> bool:
        """Whether a rule names this very address, and allows the port."""
        host = str(address)
        return any(rule.host == host and rule.allows(host, port) for rule in self._rules)


def parse_rule(text: str) -> Rule | str:
    """One entry of `egress`, or what is wrong with it."""
    if "/" in text or "@" in text:
        return f"{text!r} is a URL or a network, not a host"
    if not text.isascii():
        return f"{text!r} is not ASCII: write the name in its xn-- form"
    host, port = split_port(text)
    if port is None:
        return f"{text!r} has an invalid port"
    if host == "*":
        return Rule("*", port or None)
    name = host.removeprefix("*.")
    if "*" in name:
        return f"{text!r} has a * that is not the first label"
    plain = plain_host(name)
    if not plain or (host != name and address_of(plain) is not None):
        return f"{text!r} is not a host"
    return Rule(f"*.{plain}" if host != name else plain, port or None)


def split_port(text: str) -> tuple[str, int | None]:
    """A host, and the port after its last colon: 0 without one, None if it is invalid."""
    if address_of(text) is not None:
        return text, 0
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, 0
    valid = _PORT.fullmatch(port) and int(port) <= 65535
    return host, int(port) if valid else None


def check_egress(texts: tuple[str, ...], network: str) -> Iterator[SpecError]:
    """The problems of a job's `egress`, which must be checked for its form before."""
    if len(texts) > MAX_RULES:
        yield SpecError(
            "egress", f"has {len(texts)} entries", allowed=f"at most {MAX_RULES}; *.HOST for many"
        )
        return
    for index, text in enumerate(texts):
        if isinstance(problem := parse_rule(text), str):
            yield SpecError(f"egress[{index}]", problem, allowed=ALLOWED_RULES)
    if texts and network != "none":
        yield SpecError(
            "egress",
            f"would limit nothing: the guest has the network {network}",
            allowed='egress or network, not both; network = "none" is the default',
        )


def authority(host: str, port: int) -> str:
    """`HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shortest(targets: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """The shortest `egress` that allows exactly these hosts, each at the ports that it needs.

    A host at port 80 or 443 is an entry without a port, which allows both. There is no `*`: it
    would allow hosts that nobody asked for.
    """
    entries = {host if port in WEB_PORTS else authority(host, port) for host, port in targets}
    return tuple(sorted(entries))
