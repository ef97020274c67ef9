"""The proxy behind the real program of the guest, against clients of every kind."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from orchestrator.egress import link
from orchestrator.egress.dial import Dialer, Target
from orchestrator.egress.errors import Refused
from orchestrator.egress.host_proxy import HostProxies
from orchestrator.egress.ledger import Entry
from states.egress import Rules
from states.errors import PikaciError
from tests.unit.orchestrator.egress_rig import KEY, Way, open_way, read_all, serving

HERE = "127.0.0.1"


async def echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def web(stream: trio.SocketStream) -> None:
    """Answers one request with what it received, in the manner of HTTP/1.0."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 fine\r\nX-Hop: 1\r\nConnection: x-hop\r\n\r\n" + data)
    await stream.aclose()


async def settled(way: Way, count: int = 1) -> list[Entry]:
    with trio.fail_after(10):
        while len(way.entries) < count:
            await trio.sleep(0.01)
    return way.entries


async def test_a_tunnel_carries_bytes_both_ways_and_is_accounted_for(tmp_path: Path) -> None:
    """Also bytes that were sent along with the request."""
    async with serving(echo) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        async with await way.client() as client:
            await client.send_all(
                f"CONNECT {HERE}:{port} HTTP/1.1\r\nHost: x\r\n\r\nearly".encode()
            )
            await client.send_all(bytes(1 << 20))
            await client.send_eof()
            answer = await read_all(client)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b"early" + bytes(1 << 20)
        (entry,) = await settled(way)
    assert (HERE, port, False, "") == (entry.host, entry.port, entry.refused, entry.reason)
    assert entry.sent_bytes == entry.received_bytes == (1 << 20) + 5
    assert HERE == entry.address


async def test_a_request_with_an_absolute_uri_is_passed_on(tmp_path: Path) -> None:
    """In origin form, with the URI's host, and without what is between neighbours only."""
    async with serving(web) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        answer = await way.ask(
            f"GET http://{HERE}:{port}/a?b#c HTTP/1.1\r\nHost: other.example\r\n"
            "Proxy-Authorization: secret\r\nX-Mine: 1\r\nX-Gone: 2\r\nConnection: x-gone, close\r\n\r\n".encode()
        )
    text = answer.decode().lower()
    assert text.startswith("http/1.1 200 fine\r\n")
    assert "get /a?b http/1.1\r\n" in text
    assert f"host: {HERE}:{port}\r\n" in text
    assert "x-mine: 1" in text
    assert not re.search("other.example|secret|x-gone: 2|x-hop: 1", text)


async def test_requests_may_follow_each_other_on_one_connection(tmp_path: Path) -> None:
    """As apt sends them: several, before the first is answered."""
    async with serving(web) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        request = f"GET http://{HERE}:{port}/%d HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await way.ask(
            b"".join((request % n).encode() for n in range(3)).replace(
                b"/2 HTTP/1.1\r\n", b"/2 HTTP/1.1\r\nConnection: close\r\n"
            )
        )
        assert [b"/0", b"/1", b"/2"] == re.findall(rb"GET (/\d)", answer)
        assert 3 == len(await settled(way, 3))


async def test_a_body_is_passed_on_while_it_comes(tmp_path: Path) -> None:
    """And a client that waits for 100 Continue gets it."""
    got = b""

    async def take(stream: trio.SocketStream) -> None:
        nonlocal got
        while not got.endswith(b"0\r\n\r\n"):
            got += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 201 made\r\nContent-Length: 0\r\n\r\n")

    async with serving(take) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        client = await way.client()
        async with client:
            await client.send_all(
                f"PUT http://{HERE}:{port}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
            )
            assert b" 100 " in await client.receive_some()
            await client.send_all(b"3\r\nabc\r\n0\r\n\r\n")
            assert b"HTTP/1.1 201 made" in await read_all(client)
    assert b"\r\nabc\r\n" in got
    assert b"xpect" not in got


async def test_a_body_has_one_length(tmp_path: Path) -> None:
    """Or a server that believes the other one takes a part of it for another request."""
    got = b""

    async def take(stream: trio.SocketStream) -> None:
        nonlocal got
        while not got.endswith(b"0\r\n\r\n"):
            got += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 201 made\r\nContent-Length: 0\r\n\r\n")

    async with serving(take) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        answer = await way.ask(
            f"PUT http://{HERE}:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode()
        )
    assert b"201 made" in answer
    assert b"chunked" in got
    assert b"ontent-length" not in got.lower()


async def test_a_client_of_http_1_0_is_served(tmp_path: Path) -> None:
    """Its answer ends with the connection."""
    async with serving(web) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        answer = await way.ask(f"GET http://{HERE}:{port}/old HTTP/1.0\r\n\r\n".encode())
    assert b"GET /old HTTP/1.1" in answer
    assert b"chunked" not in answer.lower()
    assert not answer.endswith(b"<reset>")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("CONNECT b.example:443", f"403 egress to b.example:443 is not allowed by {KEY}"),
        ("CONNECT a.example:22", f"403 egress to a.example:22 is not allowed by {KEY}"),
        ("GET http://b.example/", f"403 egress to b.example:80 is not allowed by {KEY}"),
        ("CONNECT 127.0.0.1:443", f"403 egress to 127.0.0.1:443 is not allowed by {KEY}"),
        ("CONNECT localhost:443", "403 egress to localhost:443 is not allowed: "),
        (
            "CONNECT [::ffff:127.0.0.1]:443",
            "403 egress to [::ffff:7f00:1]:443 is not allowed by",
        ),
        ("CONNECT 2130706433:443", "400 2130706433:443 is not a host with a port"),
        ("CONNECT a.example", "400 a.example is not a host with a port"),
        ("CONNECT u@a.example:443", "400 u@a.example:443 is not a host with a port"),
        ("CONNECT a.example:99999", "400 a.example:99999 is not a host with a port"),
        ("GET http://u:p@a.example/", "400 u:p@a.example is not a host with a port"),
        ("GET /", "400 this is an HTTP proxy: it takes CONNECT HOST:PORT and GET http://HOST/"),
        ("GET https://a.example/", "400 this is an HTTP proxy"),
        ("GET ftp://a.example/", "400 this is an HTTP proxy"),
    ],
)
async def test_a_refusal_has_its_reason_in_the_first_line(
    tmp_path: Path, asked: str, said: str
) -> None:
    """Clients show nothing else; and it is in the account."""
    async with open_way(tmp_path, "a.example", "localhost") as way:
        answer = await way.ask(f"{asked} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        (entry,) = await settled(way)
    first = answer.decode().splitlines()[0]
    assert first.startswith(f"HTTP/1.1 {said}")
    assert entry.refused
    assert not answer.endswith(b"<reset>")
    assert entry.reason in first


@pytest.mark.parametrize("port_too", [False, True])
async def test_a_name_that_leads_inside_is_refused_unless_a_rule_names_the_address(
    tmp_path: Path, port_too: bool
) -> None:
    """The name's own rule is not enough, nor is `*`."""
    async with serving(echo) as port:
        rules = ["*", f"localhost:{port}"]
        if port_too:
            rules += [f"127.0.0.1:{port}", f"[::1]:{port}"]
        async with open_way(tmp_path, *rules) as way, await way.client() as client:
            await client.send_all(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = await client.receive_some()
    assert answer.startswith(b"HTTP/1.1 200" if port_too else b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://a.example/ HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (1 << 17),
        b"CONNECT a.example:443\x00evil:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_garbage_is_answered_and_accounted_for(tmp_path: Path, garbage: bytes) -> None:
    """It reaches nothing, and harms no other connection."""
    async with open_way(tmp_path, "a.example") as way:
        answer = await way.ask(garbage)
        (entry,) = await settled(way)
        after = await way.ask(b"CONNECT b.example:1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP/1.1 4" in answer
    assert entry.refused
    assert after.startswith(b"HTTP/1.1 403")


async def test_an_answer_that_breaks_off_is_an_error_for_the_client(tmp_path: Path) -> None:
    """A short file must not look complete."""

    async def break_off(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await stream.aclose()

    async with serving(break_off) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        answer = await way.ask(f"GET http://{HERE}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        (entry,) = await settled(way)
    assert answer.endswith(b"<reset>")
    assert "broke" in entry.reason


async def test_a_server_that_speaks_no_http_is_named(tmp_path: Path) -> None:
    """The answer has not begun, so the client can be told."""

    async def babble(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"SSH-2.0-x\r\n\r\n")
        await stream.aclose()

    async with serving(babble) as port, open_way(tmp_path, f"{HERE}:{port}") as way:
        answer = await way.ask(f"GET http://{HERE}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 502 the connection broke: ")


async def test_a_host_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    """Nobody listens there, or the name does not exist."""
    async with open_way(tmp_path, "127.0.0.1:9", "gone.invalid") as way:
        refused = await way.ask(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\n\r\n")
        unknown = await way.ask(b"CONNECT gone.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [False, False] == [entry.refused for entry in await settled(way, 2)]
    assert b"HTTP/1.1 502 127.0.0.1:9 cannot be reached: Connection refused" in refused
    assert b"HTTP/1.1 502 gone.invalid:443 cannot be resolved: " in unknown


async def test_a_stalled_connection_delays_no_other_and_takes_little_memory(tmp_path: Path) -> None:
    """One client that does not read, and one server that does not: each has its own window."""
    sent = 0

    async def pour(stream: trio.SocketStream) -> None:
        nonlocal sent
        while True:
            await stream.send_all(bytes(1 << 16))
            sent += 1 << 16

    async def ignore(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with (
        serving(pour) as pouring,
        serving(ignore) as ignoring,
        serving(echo) as port,
        open_way(tmp_path, *(f"{HERE}:{p}" for p in (pouring, ignoring, port))) as way,
        trio.open_nursery() as nursery,
    ):
        slow, deaf = await way.client(), await way.client()
        await slow.send_all(f"CONNECT {HERE}:{pouring} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await deaf.send_all(f"CONNECT {HERE}:{ignoring} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        nursery.start_soon(deaf.send_all, bytes(64 << 20))
        before = -1
        with trio.fail_after(30):
            while sent != before or not sent:
                before = sent
                await trio.sleep(0.3)
        # What the kernel's socket buffers hold on the way, and one window in each process.
        assert sent < 32 << 20

        async with await way.client() as client:
            await client.send_all(f"CONNECT {HERE}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with trio.fail_after(5):
                await client.receive_some()
                await client.send_all(b"hello")
                assert b"hello" == await client.receive_some()
        nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(slow)
        await trio.aclose_forcefully(deaf)


async def test_many_stalled_connections_are_dropped_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a reason, and an error for their clients; the others go on meanwhile."""
    monkeypatch.setattr(link, "STALLED_SECS", 0.3)
    most, much = 0, bytes(16 << 20)

    async def ignore(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with (
        serving(ignore) as ignoring,
        serving(echo) as port,
        open_way(tmp_path, f"{HERE}:{ignoring}", f"{HERE}:{port}") as way,
        trio.open_nursery() as nursery,
    ):

        async def stall() -> None:
            async with await way.client() as client:
                with suppress(trio.BrokenResourceError):
                    await client.send_all(
                        f"CONNECT {HERE}:{ignoring} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                    )
                    await client.send_all(much)

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, way.links[0].held)
                await trio.sleep(0.01)

        nursery.start_soon(watch)
        for _ in range(60):
            nursery.start_soon(stall)
        with trio.fail_after(60):
            while not any("read nothing" in entry.reason for entry in way.entries):
                await trio.sleep(0.05)
        async with await way.client() as client:
            await client.send_all(f"CONNECT {HERE}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with trio.fail_after(30):
                await client.receive_some()
                for _ in range(200):
                    await client.send_all(bytes(1 << 16))
                    left = 1 << 16
                    while left:
                        left -= len(await client.receive_some())
        nursery.cancel_scope.cancel()

    assert link.HELD_BYTES / 2 < most < 1.2 * link.HELD_BYTES
    dropped = [entry for entry in way.entries if "read nothing" in entry.reason]
    # The kernel takes little for a server that takes nothing.
    assert all(entry.sent_bytes < 2 << 20 for entry in dropped)


async def test_many_connections_are_served_and_the_account_stays_bounded(tmp_path: Path) -> None:
    """More than the guest's end carries at once: the others wait."""
    async with serving(echo) as port, open_way(tmp_path, f"{HERE}:{port}") as way:

        async def one() -> None:
            async with await way.client() as client:
                await client.send_all(f"CONNECT {HERE}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert b"200" in await client.receive_some()
                await trio.sleep(0.2)
                await client.send_all(b"x")
                assert b"x" == await client.receive_some()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(600):
                    nursery.start_soon(one)
        await trio.sleep(0.5)
    assert 600 == sum(entry.count for entry in way.entries)
    assert len(way.entries) < 210


async def test_the_host_s_own_proxy_is_used_and_named(tmp_path: Path) -> None:
    """For a tunnel and for a plain request; no name is resolved here."""
    asked: list[bytes] = []

    async def upstream(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some())
        if asked[-1].startswith(b"CONNECT"):
            await stream.send_all(b"HTTP/1.1 200 yes\r\n\r\nthere")
            await echo(stream)
        else:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serving(upstream) as port:
        proxy = f"http://me:pass%40word@{HERE}:{port}"
        environment = {"http_proxy": proxy, "HTTPS_PROXY": proxy, "no_proxy": "direct.invalid"}
        async with open_way(tmp_path, "*", environment=environment) as way:
            async with await way.client() as client:
                await client.send_all(b"CONNECT far.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"there"):
                    answer += await client.receive_some()
            plain = await way.ask(
                b"GET http://far.invalid/x HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n"
            )
            direct = await way.ask(b"CONNECT direct.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n")
            inner = await way.ask(b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n")
            entries = await settled(way, 4)
    assert plain.endswith(b"ok")
    assert asked[0].startswith(b"CONNECT far.invalid:443 HTTP/1.1\r\n")
    assert asked[1].startswith(b"GET http://far.invalid/x HTTP/1.1\r\n")
    assert all(b"Basic bWU6cGFzc0B3b3Jk" in one for one in asked)
    assert b"cannot be resolved" in direct
    assert b"HTTP/1.1 403" in inner
    assert {f"{HERE}:{port}"} == {entry.proxy for entry in entries if entry.host == "far.invalid"}


async def test_a_request_that_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow client has a time for its request's head."""
    monkeypatch.setattr("orchestrator.egress.proxy.HEAD_SECS", 0.3)
    async with open_way(tmp_path, "a.example") as way:
        answer = await way.ask(b"CONNECT a.exa")
        (entry,) = await settled(way)
    assert b"HTTP/1.1 504 no complete request arrived within 0.3 s" in answer
    assert not entry.host


def test_a_mirror_of_the_host_may_have_a_private_address_and_no_other() -> None:
    """The host's own settings lead there; no rule of the job does."""
    mirrors = ("10.1.2.3:443", "127.0.0.1:443", "169.254.1.1:443")
    dialer = Dialer(Rules(()), HostProxies({}), KEY, mirrors=mirrors)
    assert dialer.check(Target("10.1.2.3", 443, tunnel=True)) is None
    for host, port in [("10.1.2.3", 80), ("127.0.0.1", 443), ("169.254.1.1", 443)]:
        with pytest.raises(Refused):
            dialer.check(Target(host, port, tunnel=True))


@pytest.mark.parametrize(
    "url", ["socks5://p.example:1080", "https://p.example", "http://", "http://[x"]
)
def test_a_host_s_proxy_of_another_kind_is_refused(url: str) -> None:
    """The message names the variable, and no password."""
    with pytest.raises(PikaciError, match="https_proxy") as refused:
        HostProxies({"HTTPS_PROXY": url.replace("p.example", "me:secret@p.example")})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("direct", "host", "proxied"),
    [
        ("", "a.example", True),
        ("*", "a.example", False),
        ("a.example", "a.example", False),
        ("a.example", "b.a.example", False),
        (".a.example, c", "b.a.example", False),
        ("a.example", "ba.example", True),
        ("10.1.2.3", "10.1.2.3", False),
        ("2.3", "10.1.2.3", True),
        ("::1", "::1", False),
    ],
)
def test_no_proxy_names_hosts_to_reach_directly(direct: str, host: str, proxied: bool) -> None:
    """With what is below them, but for addresses."""
    proxies = HostProxies({"all_proxy": "http://p.example:3128", "no_proxy": direct})
    found = proxies.of(host, tunnel=True)
    assert ("p.example:3128" if proxied else "None") == str(found)
