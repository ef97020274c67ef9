"""Hostile guests gain nothing by their way out."""

from __future__ import annotations

import re
import socket

import pytest

from orchestrator.egress import link as links
from orchestrator.egress.link import HELD_BYTES, Link
from orchestrator.journal import open_journal
from states import events as ev
from states.outcome import Outcome
from states.spec import JobSpec
from tests.integration.egress_servers import (
    HERE,
    PORT,
    Deaf,
    Echo,
    Web,
    connections,
    python,
    server,
)
from tests.integration.running import Runs, output_of

pytestmark = pytest.mark.incus


async def test_star_leads_to_no_inner_address(runs: Runs) -> None:
    """Whatever name leads there; each address of the host, with a server that would answer."""
    with server(Web, http=True) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))
        own = probe.getsockname()[0]
        asked = [
            f"localhost:{port}",
            f"{HERE}:{port}",
            f"{own}:22",
            f"{socket.gethostname()}:{port}",
        ]
        command = "\n".join(
            f"curl --noproxy '' -sS -o /dev/null -w '%{{http_connect}}\\n' -p http://{place}/ || :"
            for place in asked
        )
        job = await runs.run_one(JobSpec(command=command, egress=("*",)))
    codes = [line for line in output_of(job).decode().splitlines() if line.isdigit()]
    assert ["403"] * 3 == codes[:3]
    assert codes[3] in ("403", "502")  # the host may not know its own name
    assert all(one.refused for one in connections(runs, job.id)[:3])


NOTHING = """
import socket
def tried(what, call):
    try:
        call()
        print(what, "WENT OUT")
    except OSError as error:
        print(what, type(error).__name__)
def udp(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", address)
def raw(kind):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, kind) as s:
        s.sendto(bytes(64), ("203.0.113.1", 0))
def packet():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0)); s.send(bytes(64))
tried("dns", lambda: socket.getaddrinfo("example.org", 443))
tried("udp", lambda: udp(("203.0.113.1", 53)))
tried("tcp", lambda: socket.create_connection(("203.0.113.1", 443), 5))
tried("tcp6", lambda: socket.create_connection(("2001:db8::1", 443), 5))
tried("icmp", lambda: raw(socket.IPPROTO_ICMP))
tried("raw", lambda: raw(socket.IPPROTO_RAW))
tried("packet", packet)
tried("vsock", lambda: socket.socket(socket.AF_VSOCK).connect((2, 1024)))
print(*(name for _, name in socket.if_nameindex()))
"""


@pytest.mark.parametrize("root", [False, True])
async def test_there_is_no_way_around_the_proxy(runs: Runs, root: bool) -> None:
    """No name server, no route, no interface: also for the guest's root."""
    spec = JobSpec(command=python(NOTHING), egress=("*",), run_as_root=root)
    job = await runs.run_one(spec)
    printed = output_of(job).decode()
    assert Outcome.PASSED is job.outcome, printed
    assert 8 == len(re.findall("Error|gaierror", printed)), printed
    assert "WENT OUT" not in printed
    assert printed.endswith("\nlo\n")
    assert [] == connections(runs, job.id)


HOSTILE = f"""
import os, socket, threading
def say(data, wait=True):
    s = socket.create_connection(("{HERE}", {PORT}), 60)
    s.sendall(data)
    if not wait:
        return s
    got = b""
    try:
        while chunk := s.recv(65536):
            got += chunk
    except ConnectionResetError:
        pass
    return got.split(b"\\r\\n")[0].decode("ascii", "replace")
echo = os.environ["ECHO"].encode()
connect = b"CONNECT " + echo + b" HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
stalled = [say(connect + bytes(1 << 20), wait=False) for _ in range(5)]
silent = [say(b"", wait=False) for _ in range(20)]
print("garbage", say(b"\\x00\\xff" * 500))
print("tls", say(b"\\x16\\x03\\x01" + bytes(200)))
print("old", say(b"GET http://" + echo + b"/ HTTP/1.0\\r\\n\\r\\n")[:8])
print("old refused", say(b"CONNECT a.invalid:443 HTTP/1.0\\r\\n\\r\\n"))
print("smuggle", say(b"GET http://" + echo + b"/ HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 3\\r\\nContent-Length: 4\\r\\n\\r\\nabc"))
done = []
def one(number):
    s = say(connect, wait=False)
    assert b" 200 " in s.recv(4096)
    word = b"%d" % number
    s.sendall(word)
    assert s.recv(100) == word
    s.close()
    done.append(number)
threads = [threading.Thread(target=one, args=(n,)) for n in range(400)]
for t in threads: t.start()
for t in threads: t.join(60)
print("many", len(done))
"""


async def test_hostile_clients_harm_neither_each_other_nor_the_account(runs: Runs) -> None:
    """Stalled and silent ones, garbage, HTTP/1.0, and hundreds at once."""
    with server(Echo) as port:
        spec = JobSpec(
            command=python(HOSTILE), env={"ECHO": f"{HERE}:{port}"}, egress=(f"{HERE}:{port}",)
        )
        job = await runs.run_one(spec)
    printed = dict(
        line.split(" HTTP/1.1 ", 1) if " HTTP/1.1 " in line else line.rsplit(" ", 1)
        for line in output_of(job).decode().splitlines()
    )
    assert Outcome.PASSED is job.outcome, printed
    assert "400" == printed.pop("many")
    assert printed["garbage"].startswith("400 ")
    assert printed["tls"].startswith("400 ")
    assert printed["old refused"].startswith("403 egress to a.invalid:443")
    assert printed["smuggle"].startswith("400 ")
    found = connections(runs, job.id)
    reached = [one for one in found if one.port == port]
    assert sum(one.count for one in reached) >= 400 + 5
    assert 4 == sum(one.count for one in found if one.refused)
    assert len(found) < 300


STALLED = f"""
import os, socket, time
def tunnel(place):
    s = socket.create_connection(("{HERE}", {PORT}), 60)
    s.sendall(b"CONNECT " + place.encode() + b" HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    assert b" 200 " in s.recv(4096)
    return s
stalled = [tunnel(os.environ["DEAF"]) for _ in range(200)]
for s in stalled:
    s.setblocking(False)
def fill():
    sent = 0
    for s in stalled:
        try:
            while True:
                sent += s.send(bytes(1 << 16))
        except OSError:
            pass
    return sent
until = time.monotonic() + 60
while time.monotonic() < until:
    if not fill():
        time.sleep(0.5)
        if not fill():
            break
s = tunnel(os.environ["ECHO"])
s.sendall(b"still there")
print(s.recv(100).decode())
"""


async def test_stalled_connections_do_not_fill_the_host(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 of them together hold what a few may; the others go on when those are dropped."""
    held = [0]
    feed = Link.feed

    async def watched(link: Link, chunk: bytes) -> None:
        await feed(link, chunk)
        held.append(link.held)

    monkeypatch.setattr(Link, "feed", watched)
    monkeypatch.setattr(links, "STALLED_SECS", 3.0)
    with server(Deaf) as deaf, server(Echo) as port:
        spec = JobSpec(
            command=python(STALLED),
            env={"DEAF": f"{HERE}:{deaf}", "ECHO": f"{HERE}:{port}"},
            egress=(f"{HERE}:{deaf}", f"{HERE}:{port}"),
        )
        job = await runs.run_one(spec)

    assert b"still there\n" == output_of(job)
    assert HELD_BYTES / 2 < max(held) <= HELD_BYTES
    assert any("read nothing for" in one.reason for one in connections(runs, job.id))


async def test_every_user_of_a_guest_has_the_same_rules(runs: Runs) -> None:
    """And none but the guest's root can end the guest's end of it."""
    with server(Web, http=True) as port:
        curl = f"curl --noproxy '' -sS -o /dev/null -w '%{{http_code}} ' http://{HERE}:{port}/"
        refused = "curl -sS -o /dev/null -w '%{http_code}\\n' http://other.invalid/"
        command = f"""
setpriv --reuid 1234 --regid 1234 --clear-groups sh -c "{curl}; {refused}"
pgrep -f '[p]ikaci-egress' || echo unseen
"""
        as_root = JobSpec(command=command, run_as_root=True, egress=(f"{HERE}:{port}",))
        as_user = JobSpec(
            command="set +e; pkill -9 -f '[p]ikaci-egress'; ls /run/pikaci-*; " + refused,
            egress=(f"{HERE}:{port}",),
        )
        jobs = await runs.run({"root": as_root, "user": as_user})
    printed = {name: output_of(job).decode() for name, job in jobs.items()}
    assert "200 403\nunseen\n" == printed["root"]
    assert "Permission denied" in printed["user"]
    assert printed["user"].endswith("403\n")


async def test_a_guest_without_egress_has_nothing_of_another_s(runs: Runs) -> None:
    """No variable, no listener, no process; beside one that has all of them."""
    look = f"""
env | grep -ic proxy; env | grep -c pikaci-certificates
: 2>&1 3<>/dev/tcp/{HERE}/{PORT} || echo closed
"""
    with server(Web, http=True) as port:
        rules = (f"{HERE}:{port}",)
        reach = f"curl -sS --noproxy '' --retry 3 http://{HERE}:{port}/; sleep 3"
        jobs = await runs.run(
            {
                "with": JobSpec(command=reach, egress=rules),
                "without": JobSpec(command=f"set +e; sleep 1; {look}"),
                "other": JobSpec(
                    command=f"curl --noproxy '' -sSD- http://{HERE}:{port}/ | head -1",
                    egress=("other.invalid",),
                ),
            }
        )
    printed = {name: output_of(job).decode() for name, job in jobs.items()}
    assert Outcome.PASSED is jobs["with"].outcome, printed
    assert printed["without"].startswith("0\n0\n")
    assert printed["without"].endswith("closed\n")
    assert "HTTP/1.1 403 " in printed["other"]
    calls = [
        e.effect for _, e in open_entries(runs, jobs["without"].id) if isinstance(e, ev.Called)
    ]
    assert "egress" not in calls


def open_entries(runs: Runs, job: str) -> list[tuple[int, ev.Entry]]:
    with open_journal(runs.root.journal) as journal:
        return list(journal.entries(job))
