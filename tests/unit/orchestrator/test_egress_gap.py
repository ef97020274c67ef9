"""The way out when its host is away: the guest's program, and what the next host makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator.attempt.plan import make_plan
from orchestrator.attempt.way_out import WayOut
from orchestrator.egress.frames import BadFrame, Frames, Hello, Kind, frame
from orchestrator.egress.link import (
    HELD_BYTES,
    LEAST_BYTES,
    SEND_BYTES,
    SPREAD_BYTES,
    GuestStream,
    Link,
)
from orchestrator.incus import Completed, Incus
from orchestrator.incus.errors import DaemonUnreachable
from tests.samples import sample_remote_context, sample_shell_job
from tests.unit.orchestrator.egress_rig import Way, read_all, serving
from tests.unit.orchestrator.test_egress_proxy import HERE, echo


@asynccontextmanager
async def carrying(way: Way) -> AsyncIterator[Link]:
    """One exec of the guest's program, killed at the block's end, as with its host."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            link: Link = await nursery.start(way.carry)
        yield link
        nursery.cancel_scope.cancel()


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with serving(echo) as port:
        found = Way(tmp_path, (f"{HERE}:{port}",))
        found.environment["port"] = str(port)
        yield found
        found.stop()


async def tunnel(way: Way) -> trio.SocketStream:
    client = await way.client()
    port = way.environment["port"]
    await client.send_all(f"CONNECT {HERE}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


async def test_open_connections_break_and_new_ones_wait_for_the_next_host(way: Way) -> None:
    """A broken one is an error for its client; the guest's hello counts it."""
    async with carrying(way) as link:
        assert link.hello is not None
        assert link.hello.fresh
        old = await tunnel(way)
        assert b"200" in await old.receive_some()
    with trio.fail_after(5):
        assert b"<reset>" == await read_all(old)
    new = await tunnel(way)
    await trio.sleep(0.2)
    async with carrying(way) as link:
        assert link.hello is not None
        assert (False, 1, 0) == (link.hello.fresh, link.hello.cut, link.hello.late)
        assert link.hello.gap_ms >= 200
        with trio.fail_after(5):
            assert b"200" in await new.receive_some()
            await new.send_all(b"hello")
            assert b"hello" == await new.receive_some()
    await old.aclose()
    await new.aclose()


async def test_whoever_waits_too_long_is_told(way: Way) -> None:
    """And later ones at once, until a host is there again."""
    way.secs = 0.5
    async with carrying(way):
        pass
    early = await tunnel(way)
    with trio.fail_after(5):
        told = await read_all(early)
        late = await read_all(await tunnel(way))
    assert told.startswith(b"HTTP/1.1 503 pikaci has been away for ")
    assert late.startswith(b"HTTP/1.1 503 pikaci has been away for ")
    async with carrying(way) as link:
        assert link.hello is not None
        assert 2 == link.hello.late
        assert b"200" in await (await tunnel(way)).receive_some()


async def test_a_client_that_gives_up_is_counted(way: Way) -> None:
    """Its command may fail because of that."""
    async with carrying(way):
        pass
    await (await tunnel(way)).aclose()
    await trio.sleep(0.2)
    async with carrying(way) as link:
        assert link.hello is not None
        assert 1 == link.hello.late


async def test_a_second_exec_takes_over(way: Way) -> None:
    """The first one ends: there is never more than one host."""
    async with trio.open_nursery() as nursery:
        await nursery.start(way.carry)
        async with carrying(way):
            with trio.fail_after(5):
                while not way.stderr:
                    await trio.sleep(0.01)
            assert b"200" in await (await tunnel(way)).receive_some()
    assert [b""] == way.stderr


async def test_a_port_in_use_is_said(way: Way) -> None:
    """The exec's stderr has the reason."""
    (listener,) = await trio.open_tcp_listeners(way.port, host="127.0.0.1")
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.carry)
            while not way.stderr:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    await listener.aclose()
    assert b"in use" in way.stderr[0]


# Frames of a hostile guest.


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 9,
        frame(Kind.OPEN, 1),
        frame(Kind.HELLO, 0, b"{}"),
        frame(Kind.HELLO, 0, b"\xff"),
        frame(Kind.HELLO, 0, b'{"fresh":true,"gap_ms":1%s,"cut":0,"late":0}' % (b"0" * 30)),
        frame(Kind.HELLO, 0, b'{"fresh":true,"gap_ms":0,"cut":-1,"late":0}'),
        frame(Kind.HELLO, 0, b'{"fresh":true,"gap_ms":0,"cut":0,"late":0}') * 2,
        b"OK" + frame(Kind.OPEN, 1) * 2,
        b"OK" + frame(Kind.DATA, 5, b"x"),
        b"OK" + frame(Kind.OPEN, 1) + frame(Kind.DATA, 1, bytes(1 << 18)) * 2,
        b"OK" + frame(Kind.OPEN, 1) + frame(Kind.CREDIT, 1, b"\xff" * 9),
        b"OK" + frame(Kind.OPEN, 1) + frame(Kind.EOF, 1) + frame(Kind.DATA, 1, b"x"),
        b"OK" + b"".join(frame(Kind.OPEN, n) for n in range(1, 600)),
        frame(Kind.DATA, 1, b"")[:5] + b"\x7f\xff\xff\xff",
    ],
)
async def test_a_guest_that_breaks_the_protocol_is_refused(sent: bytes) -> None:
    """Whatever it sends takes no more memory than its windows."""
    sent = sent.replace(b"OK", frame(Kind.HELLO, 0, msgspec.json.encode(Hello(True, 0, 0, 0))))

    async def serve(stream: GuestStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        link = Link(nursery, serve)
        with pytest.raises(BadFrame):
            await link.feed(sent)
        nursery.cancel_scope.cancel()


async def test_a_guest_that_fills_all_its_windows_waits(autojump_clock: MockClock) -> None:
    """512 connections whose servers take nothing do not hold 128 MiB; those that stall are dropped."""
    most = 0
    dropped: list[GuestStream] = []

    async def serve(stream: GuestStream) -> None:
        try:
            await stream.receive_some()
            await trio.sleep_forever()
        finally:
            if stream.dropped:
                dropped.append(stream)

    sent = frame(Kind.HELLO, 0, msgspec.json.encode(Hello(True, 0, 0, 0)))
    sent += b"".join(frame(Kind.OPEN, number) for number in range(1, 513))
    sent += b"".join(frame(Kind.DATA, number, bytes(1 << 18)) for number in range(1, 513))
    async with trio.open_nursery() as nursery:
        link = Link(nursery, serve)
        assert SEND_BYTES == link.chunk
        for at in range(0, len(sent), 1 << 16):
            await link.feed(sent[at : at + (1 << 16)])
            most = max(most, link.held)
        nursery.cancel_scope.cancel()

    assert most <= HELD_BYTES
    assert len(dropped) > 400
    assert link.held == 0


def test_what_is_passed_on_at_a_time_is_less_for_many() -> None:
    """All streams together have a bounded amount in each direction."""
    link = Link(None, None)  # type: ignore[arg-type]
    for number in range(512):
        link._streams[number] = GuestStream(link, number)
        assert LEAST_BYTES <= link.chunk <= SEND_BYTES
        assert (number + 1) * link.chunk <= SPREAD_BYTES


def test_frames_are_the_same_however_they_are_cut() -> None:
    """Bytes come as they come."""
    sent = frame(Kind.OPEN, 1) + frame(Kind.DATA, 1, b"abc") + frame(Kind.EOF, 1)
    for size in range(1, len(sent) + 1):
        frames = Frames()
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        got = [one for piece in pieces for one in frames.feed(piece)]
        assert [(Kind.OPEN, 1, b""), (Kind.DATA, 1, b"abc"), (Kind.EOF, 1, b"")] == got


# What the host makes of it.


class Execs:
    """A `Spawn` whose execs say one hello each, and end when the next one is wanted."""

    def __init__(self, *hellos: Hello | Exception | None) -> None:
        self.hellos = list(hellos)
        self.go_on = trio.Event()

    async def __call__(self, argv: Any, *, sink: Any, feed: Any, **_: Any) -> Completed:
        said = self.hellos.pop(0)
        if isinstance(said, Exception):
            raise said
        if said is None:
            return Completed(tuple(argv), 127, b"", b"not found")
        await sink(frame(Kind.HELLO, 0, msgspec.json.encode(said)))
        if self.hellos:
            await self.go_on.wait()
            return Completed(tuple(argv), 137, b"", b"")
        await trio.sleep_forever()
        raise AssertionError


def is_ready() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


def way_out(tmp_path: Path, spawn: Execs) -> tuple[WayOut, list[Any], list[str]]:
    plan = make_plan(sample_shell_job(egress=("*",)), sample_remote_context())
    gaps: list[Any] = []
    warnings: list[str] = []
    incus = Incus(tmp_path / "conf", spawn=spawn)
    found = WayOut(plan, incus, "jobs.a.egress", write=print, gap=gaps.append, warn=warnings.append)
    return found, gaps, warnings


FRESH = Hello(fresh=True, gap_ms=0, cut=0, late=0)
HARMLESS = Hello(fresh=False, gap_ms=700, cut=0, late=0)
HARMED = Hello(fresh=False, gap_ms=2500, cut=2, late=1)


async def test_a_way_out_without_a_gap_does_no_harm(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The usual case."""
    found, gaps, _ = way_out(tmp_path, Execs(FRESH))
    async with found.open(is_ready(), running=False):
        await found.settle()
    assert ([], "") == (gaps, found.harm)


@pytest.mark.parametrize(
    ("running", "hello", "gap", "harm"),
    [
        (False, HARMLESS, HARMLESS, ""),
        (True, HARMLESS, HARMLESS, ""),
        (True, HARMED, HARMED, "for 2.5 s: 2 connections were cut, 1 timed out"),
        (True, FRESH, None, "for an unknown time"),
    ],
)
async def test_the_next_process_learns_of_the_gap(
    tmp_path: Path,
    autojump_clock: MockClock,
    running: bool,
    hello: Hello,
    gap: Hello | None,
    harm: str,
) -> None:
    """A listener that is new knows nothing of the connections before it."""
    found, gaps, _ = way_out(tmp_path, Execs(hello))
    async with found.open(is_ready(), running=running):
        await found.settle()
    assert ([gap], harm) == (gaps, found.harm)


async def test_an_exec_that_ends_is_replaced(tmp_path: Path, autojump_clock: MockClock) -> None:
    """And the guest tells what that cost."""
    execs = Execs(FRESH, DaemonUnreachable("down"), HARMED)
    found, gaps, warnings = way_out(tmp_path, execs)
    async with found.open(is_ready(), running=False):
        execs.go_on.set()
        await trio.sleep(5)
        await found.settle()
    assert [HARMED] == gaps
    assert "2 connections" in found.harm
    assert [] == warnings


async def test_a_daemon_that_is_down_at_first_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The job begins when its way out is there."""
    down = DaemonUnreachable("down")
    found, gaps, _ = way_out(tmp_path, Execs(down, down, FRESH))
    with trio.fail_after(10):
        async with found.open(is_ready(), running=False):
            await found.settle()
    assert ([], "") == (gaps, found.harm)


async def test_a_guest_without_the_program_is_named(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its job had no way out, and is not to blame."""
    found, gaps, warnings = way_out(tmp_path, Execs(None))
    async with found.open(is_ready(), running=False):
        await found.settle()
    assert "for an unknown time" == found.harm
    assert [None] == gaps
    assert "does not start: not found; if the image is older than this pikaci: " in warnings[0]
    assert "pikaci image build" in warnings[0]


async def test_connections_wait_for_the_first_host_too(way: Way) -> None:
    """The guest listens before its host carries anything."""
    listening = await trio.run_process(way.argv("listen"), capture_stderr=True)
    again = await trio.run_process(way.argv("listen"), capture_stderr=True)
    assert (b"", b"") == (listening.stderr, again.stderr)
    early = await tunnel(way)
    await trio.sleep(0.1)
    async with carrying(way) as link:
        assert Hello(fresh=True, gap_ms=0, cut=0, late=0) == link.hello
        with trio.fail_after(5):
            assert b"200" in await early.receive_some()
    await early.aclose()


async def test_a_way_out_that_is_not_restored_counts_as_harm(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What became of its connections is not known."""
    execs = Execs(FRESH, *(DaemonUnreachable("down") for _ in range(1000)))
    found, gaps, warnings = way_out(tmp_path, execs)
    async with found.open(is_ready(), running=False):
        execs.go_on.set()
        await trio.sleep(300)
        await found.settle()
    assert [None] == gaps
    assert "for an unknown time" == found.harm
    assert "the job cannot reach the hosts of `egress`: " in warnings[0]
