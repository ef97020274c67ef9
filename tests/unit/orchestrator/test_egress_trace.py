"""What a trace says of a job's connections."""

from __future__ import annotations

from typing import Any

from orchestrator.tracing.egress import egress
from orchestrator.tracing.egress_lines import egress_lines
from states import events as ev
from tests.samples import BEGAN

TIMES: dict[str, Any] = {"job": "r.1", "at": BEGAN, "monotonic": 1.0}


def reached(host: str, port: int = 443, **more: Any) -> ev.Connected:
    return ev.Connected(host=host, port=port, **{"address": "203.0.113.1"} | more, **TIMES)


def refused(host: str, port: int = 443, **more: Any) -> ev.Connected:
    return ev.Connected(host=host, port=port, refused=True, reason="egress no", **more, **TIMES)


def shown(*notes: ev.Connected, rules: tuple[str, ...] = ("*",)) -> str:
    return "\n".join(egress_lines(egress(rules, notes, [])))


def test_connections_are_summed_up_by_host_and_port() -> None:
    """The one that received most comes first."""
    found = egress(
        ["*"],
        [
            reached("a.example", received_bytes=10, duration_ms=500.0),
            reached("b.example", received_bytes=2000, sent_bytes=7),
            reached("a.example", received_bytes=30, count=3, duration_ms=1500.0),
            reached("a.example", 80),
        ],
        [],
    )
    assert ["b.example:443", "a.example:443", "a.example:80"] == [host.name for host in found.hosts]
    assert (4, 40, 2.0) == (
        found.hosts[1].connections, found.hosts[1].received_bytes, found.hosts[1].secs
    )  # fmt: skip
    assert (6, 2040, 7) == (found.connections, found.received_bytes, found.sent_bytes)
    assert ("a.example", "b.example") == found.shortest


def test_what_was_refused_is_in_the_second_list_only() -> None:
    """The first one can be pasted without a thought."""
    text = shown(reached("a.example"), refused("evil.example", 8443))
    assert 'enough: egress = ["a.example"]\n' in text
    assert 'with what was refused: egress = ["a.example", "evil.example:8443"]' in text
    assert "evil.example:8443" in text
    assert "refused 1: egress no" in text


def test_a_host_that_was_not_reached_is_not_needed() -> None:
    """Its name may not exist."""
    text = shown(reached("a.example"), reached("gone.example", address="", reason="no such name"))
    assert 'enough: egress = ["a.example"]' in text
    assert "no such name" in text


def test_an_inner_address_is_named_with_its_host() -> None:
    """One alone does not do."""
    inner = reached("a.example", address="10.0.0.1")
    assert ("10.0.0.1", "a.example") == egress(["a.example", "10.0.0.1"], [inner], []).shortest
    denied = refused("b.example", address="fd00::1")
    assert ("b.example", "fd00::1") == egress(["b.example"], [denied], []).with_refused


def test_the_host_s_proxy_is_named() -> None:
    """What went through it was checked by name only."""
    text = shown(reached("a.example", address="", proxy="p.example:3128"))
    assert "through the host's own proxy p.example:3128: by name only" in text
    assert 'egress = ["a.example"]' in text


def test_too_many_hosts_give_no_list() -> None:
    """It would not be the whole one."""
    assert "too many hosts" in shown(reached("a.example"), reached("*", 0, count=900))


def test_a_job_that_reached_nothing_needs_nothing() -> None:
    """Neither a list, nor the key."""
    assert "egress: no connections; egress = [] is enough" == shown()


def test_a_gap_is_told() -> None:
    """Also one whose length is not known."""
    gaps = [
        ev.EgressGap(duration_ms=2500.0, cut=2, late=1, **TIMES),
        ev.EgressGap(duration_ms=0.0, cut=0, late=0, known=False, **TIMES),
    ]
    text = "\n".join(egress_lines(egress(["*"], [], gaps)))
    assert "no egress for 2.5 s: 2 connections cut, 1 timed out" in text
    assert "no egress for an unknown time" in text
