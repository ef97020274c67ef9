"""The rules of `egress`, and the addresses that no name may lead to."""

from __future__ import annotations

import ipaddress

import pytest

from states.egress import Rules, parse_rule, plain_host, refused_kind, shortest
from states.errors import SpecError
from states.rules import check
from tests.samples import sample_shell_job


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        ("a.example", ["a.example:80", "a.example:443"], ["a.example:22", "b.a.example:443"]),
        ("A.Example.", ["a.example:443"], ["aa.example:443"]),
        (
            "*.a.example",
            ["b.a.example:443", "c.b.a.example:80"],
            ["a.example:443", "ba.example:443"],
        ),
        ("a.example:8080", ["a.example:8080"], ["a.example:443"]),
        ("*.a.example:22", ["b.a.example:22"], ["b.a.example:443"]),
        ("*", ["a.example:1", "203.0.113.1:25"], []),
        ("*:22", ["a.example:22"], ["a.example:443"]),
        ("10.1.2.3", ["10.1.2.3:443"], ["10.1.2.4:443", "10.1.2.3:22"]),
        ("[fd00::1]:8080", ["fd00::1:8080"], ["fd00::2:8080"]),
        ("FD00:0::1", ["fd00::1:443"], []),
    ],
)
def test_a_rule_allows_its_hosts_and_ports(
    rule: str, allowed: list[str], refused: list[str]
) -> None:
    """Without a port these are 80 and 443; `*` alone has no limit."""
    rules = Rules([rule])
    for places, expected in ((allowed, True), (refused, False)):
        for place in places:
            host, _, port = place.rpartition(":")
            assert rules.allow(host, int(port)) is expected, place


@pytest.mark.parametrize(
    "text",
    [
        "", "a:", "a:0", "a:65536", "a:b", "http://a.example/", "a/b", "10.0.0.0/8", "u@a", "a*b",
        "*a", "*.*.a", "a.*", "*.10.1.2.3", "127.1", "2130706433", "0x7f000001", "1.0x7f", "0177.0.0.1",
        "fe80::1%eth0", "bücher.example", "a b", "a\r\nb", "-a", "a..b", "." , "x" * 64, "*.",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_at_the_door(text: str) -> None:
    """The message names the entry, and says what is allowed."""
    with pytest.raises(SpecError) as refused:
        check(sample_shell_job(egress=("a.example", text)))
    assert "egress[1]" == refused.value.key
    assert "HOST" in refused.value.resolution


def test_egress_with_a_network_is_refused() -> None:
    """The proxy would limit nothing."""
    with pytest.raises(SpecError, match="incusbr0"):
        check(sample_shell_job(egress=("*",), network="incusbr0"))


def test_the_number_of_rules_is_bounded() -> None:
    """Each connection is compared with all of them."""
    check(sample_shell_job(egress=tuple(f"h{n}.example" for n in range(200))))
    with pytest.raises(SpecError, match="201 entries"):
        check(sample_shell_job(egress=tuple(f"h{n}.example" for n in range(201))))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",
        "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.251",
        "255.255.255.255", "240.0.0.1", "::", "::1", "fc00::1", "fdff::1", "fe80::1", "fec0::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "::10.0.0.1",
        "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:101::1",
        "2001:0:1:2:3:4:f5ff:fffe",
    ],
)  # fmt: skip
def test_an_inner_address_is_refused_in_each_of_its_forms(address: str) -> None:
    """Also the IPv6 addresses that lead to an IPv4 one."""
    assert refused_kind(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "203.0.113.80", "192.0.2.1", "198.51.100.7", "172.32.0.1", "100.128.0.1", "11.0.0.1",
        "2001:db8::1", "2606:4700::1", "::ffff:203.0.113.80", "64:ff9b::cb00:7150", "2002:cb00:7150::",
    ],
)  # fmt: skip
def test_a_public_address_is_not_refused(address: str) -> None:
    """Addresses for documentation count as public: machines in test networks have them."""
    assert "" == refused_kind(ipaddress.ip_address(address))


def test_only_a_rule_that_names_an_address_allows_an_inner_one() -> None:
    """Neither `*` nor a name does."""
    address = ipaddress.ip_address("10.1.2.3")
    assert not Rules(["*", "10.1.2.3:22"]).name_address(address, 443)
    assert Rules(["10.1.2.3"]).name_address(address, 443)
    assert Rules(["10.1.2.3:22"]).name_address(address, 22)


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.1", "a.0x1", "2130706433", "017700000001", "%31", ""]
)
def test_an_address_in_an_unusual_form_is_no_host(host: str) -> None:
    """A resolver would take it for an address that was never checked."""
    assert "" == plain_host(host)


def test_the_shortest_egress_is_exact() -> None:
    """The default ports need no mention; nothing is widened to a `*`."""
    found = shortest(
        [("a.example", 443), ("a.example", 80), ("a.example", 8080), ("fd00::1", 9), ("b", 443)]
    )
    assert ("[fd00::1]:9", "a.example", "a.example:8080", "b") == found
    assert not [entry for entry in found if isinstance(parse_rule(entry), str)]
    assert all(Rules(found).allow(*place) for place in [("a.example", 8080), ("fd00::1", 9)])
