"""What a job with `egress` reaches, and what it does not, tried from the inside of real guests."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from orchestrator.contract import contract
from orchestrator.image.debian import debian_sources
from orchestrator.journal import open_journal
from states import events as ev
from states.outcome import Outcome, Verdict
from states.spec import Deadlines, JobSpec
from tests.integration.command import SECS, Command, wait_until
from tests.integration.running import Runs, output_of

pytestmark = pytest.mark.incus

PORT = contract().egress.port
HERE = "127.0.0.1"
MIB = 1 << 20


def mirror() -> str:
    """The host that this machine's Debian packages come from, over http."""
    return next(
        host
        for line in debian_sources().lines
        for word in line.split()
        if word.startswith("http://") and (host := urlsplit(word).hostname)
    )


def connections(runs: Runs, job: str) -> list[ev.Connected]:
    with open_journal(runs.root.journal) as journal:
        return [e for _, e in journal.entries(job) if isinstance(e, ev.Connected)]


def python(program: str) -> str:
    """A command that runs this program in the guest."""
    return f"python3 - <<'PROGRAM'\n{program}\nPROGRAM"


@contextmanager
def server(handler: type[BaseRequestHandler], *, http: bool = False) -> Iterator[int]:
    """A server on this host's loopback; its port."""
    kind: Any = ThreadingHTTPServer if http else ThreadingTCPServer
    kind.request_queue_size = 1024
    with kind((HERE, 0), handler) as serving:
        serving.daemon_threads = True
        Thread(target=serving.serve_forever, daemon=True).start()
        yield serving.server_address[1]
        serving.shutdown()


class Echo(BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(1 << 16):
                self.request.sendall(data)
        except OSError:
            pass


class Silent(BaseRequestHandler):
    """Takes a request, and answers nothing."""

    def handle(self) -> None:
        while self.request.recv(1 << 16):
            pass


class Web(BaseHTTPRequestHandler):
    """Redirects `/to/HOST:PORT`; sends and takes as many bytes as are asked for."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", f"http://{self.path[4:]}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = int(self.path[1:] or 0)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for _ in range(size // MIB):
            self.wfile.write(bytes(MIB))

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, MIB)))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


async def test_packages_are_fetched_by_name(runs: Runs) -> None:
    """pip, apt and curl find the proxy and the certificates, and the trace has every host."""
    command = """
pip download --quiet --no-deps --dest /tmp/wheels --no-binary=:none: idna
ls /tmp/wheels
apt-get update -qq 2>&1 && apt-get download -qq hello && ls hello_*
"""
    spec = JobSpec(command=f"cd /tmp; {command}", egress=("*",), run_as_root=True)
    job = await runs.run_one(spec)

    printed = output_of(job)
    assert Outcome.PASSED is job.outcome, printed.decode()
    assert re.search(rb"idna-\S+\.whl", printed)
    assert b"hello_" in printed
    found = connections(runs, job.id)
    assert {80, 443} <= {one.port for one in found}
    assert mirror() in {one.host for one in found}
    assert all(one.received_bytes and one.address for one in found)


async def test_only_what_is_named_is_reached_and_every_attempt_is_noted(runs: Runs) -> None:
    """Other names, other ports, literals, names that lead inside, redirects; by the proxy's words."""
    asked = [
        "http://other.invalid/",
        "https://other.invalid/",
        f"http://{mirror()}:8080/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://127.0.0.1:22/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "https://localhost/",
        "http://0.0.0.0/",
    ]
    lines = [
        f"curl --noproxy '' -gsS -o /dev/null -D- -m 20 {url} 2>&1 | head -1 || :" for url in asked
    ]
    lines.append(f"curl --noproxy '' -sS -o /dev/null -w '%{{http_code}}\\n' http://{mirror()}/")
    spec = JobSpec(command="\n".join(lines), egress=(mirror(), "localhost"))
    job = await runs.run_one(spec)

    answers = output_of(job).decode().splitlines()
    assert len(asked) + 1 == len(answers)
    assert re.fullmatch("[234]..", answers[-1])
    refused = answers[:-1]
    assert all(re.match("HTTP/1.1 40[03] ", answer) for answer in refused), refused
    assert "HTTP/1.1 403 egress to other.invalid:443 is not allowed by jobs.job.egress" in refused
    assert any("localhost:443 is not allowed: " in answer for answer in refused)
    found = connections(runs, job.id)
    assert len(asked) == sum(one.refused for one in found)
    assert [mirror()] == [one.host for one in found if not one.refused]


@pytest.mark.parametrize(("end", "hinted"), [("exit 3", True), ("true", False)])
async def test_a_job_that_failed_after_a_refusal_is_told_of_it(
    runs: Runs, end: str, hinted: bool
) -> None:
    """With the host; a job that passed is not."""
    command = f"curl -sS https://other.invalid || {end}"
    job = await runs.run_one(JobSpec(command=command, egress=("named.invalid",)))

    assert hinted == ("egress to other.invalid:443 was refused" in job.hint)


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


async def test_a_rule_that_names_an_address_leads_there(runs: Runs) -> None:
    """And a redirect from there leads nowhere else."""
    with server(Web, http=True) as port, server(Web, http=True) as other:
        command = f"""
curl --noproxy '' -sS -o /dev/null -w '%{{http_code}} %{{size_download}}\\n' http://{HERE}:{port}/{MIB}
curl --noproxy '' -sSL -D- http://{HERE}:{port}/to/{HERE}:{other} | grep ^HTTP
curl --noproxy '' -sSL -D- http://{HERE}:{port}/to/other.invalid | grep ^HTTP
"""
        job = await runs.run_one(JobSpec(command=command, egress=(f"{HERE}:{port}",)))
    printed = output_of(job).decode().splitlines()
    assert f"200 {MIB}" == printed[0]
    assert [302, 403, 302, 403] == [int(line.split()[1]) for line in printed[1:]]


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


async def test_certificates_of_the_host_are_trusted_and_can_be_upgraded(runs: Runs) -> None:
    """The mount is not in the way of the package that has the guest's own."""
    command = """
echo "$SSL_CERT_FILE $PIP_CERT $NODE_EXTRA_CA_CERTS" | tr ' ' '\\n' | sort -u
touch "$SSL_CERT_FILE" 2>&1 | grep -o 'Read-only' || :
apt-get update -qq && apt-get install -qq --reinstall ca-certificates >/dev/null 2>&1 && echo installed
"""
    job = await runs.run_one(JobSpec(command=command, egress=("*",), run_as_root=True))
    ours = contract().certificates
    printed = output_of(job).decode()
    assert printed.splitlines() == [f"{ours.path}/{ours.bundle}", "Read-only", "installed"], printed


async def test_the_host_s_mirrors_are_reached_without_an_entry(runs: Runs) -> None:
    """The same job file works wherever the host's packages come from."""
    command = """
apt-get update 2>&1 | grep -c ^Err || :
apt-get indextargets --format '$(SOURCESENTRY)' | cut -d: -f1 | sort -u
apt-get download -qq hello && ls hello_*
"""
    spec = JobSpec(
        command=f"cd /tmp; {command}",
        egress=("other.invalid",),
        host_mirrors=True,
        run_as_root=True,
    )
    job = await runs.run_one(spec)
    lines = output_of(job).decode().splitlines()
    ours = contract().certificates
    assert ["0", f"{ours.path}/{ours.sources}"] == lines[:2]
    assert lines[-1].startswith("hello_")


async def test_a_cancel_ends_the_connections(runs: Runs) -> None:
    """They are in the trace."""
    ended = Event()

    class Held(Echo):
        def handle(self) -> None:
            super().handle()
            ended.set()

    hold = f"""
import socket, time
s = socket.create_connection(("{HERE}", {PORT}))
s.sendall(b"CONNECT {HERE}:%d HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
print(s.recv(100), flush=True)
time.sleep(600)
"""
    with server(Held) as port:
        spec = JobSpec(command=python(hold % port), egress=(f"{HERE}:{port}",))
        async with trio.open_nursery() as nursery:

            async def cancel(entry: ev.Entry) -> None:
                await runs.logged(entry.job, b"200")
                assert not ended.is_set()
                nursery.cancel_scope.cancel()

            await runs.run({"job": spec}, on_running=cancel)
        with open_journal(runs.root.journal) as journal:
            (job,) = [journal.job(row.id) for row in journal.jobs()]
        assert await trio.to_thread.run_sync(partial(ended.wait, 10))
    assert Verdict.CANCELLED is job.verdict
    (found,) = connections(runs, job.id)
    assert (port, False) == (found.port, found.refused)
    assert found.duration_ms > 0


FETCH = """
[jobs.fetch]
egress = ["{here}:{port}"]
command = '''
echo begun
until [ -e /tmp/go ]; do sleep 0.05; done
curl --noproxy '' -sS -o /dev/null -w '%{{http_code}}\\n' --max-time 100 http://{here}:{port}/0
'''
"""


def write_fetch(pikaci: Command, port: int, *, more: str = "") -> None:
    pikaci.write("schema = 1\n" + FETCH.format(here=HERE, port=port) + more)


def kill(running: Any) -> None:
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=SECS)


def test_a_request_waits_while_pikaci_is_dead(pikaci: Command) -> None:
    """It is served by the process that resumes the job; the gap is in the trace, and does no harm."""
    with server(Web, http=True) as port:
        write_fetch(pikaci, port)
        running = pikaci.run_until("running", "run", "fetch")
        wait_until(lambda: b"begun" in pikaci.log_lines())
        kill(running)
        pikaci.open_gate()
        resumed = pikaci("resume")
    assert 0 == resumed.returncode, resumed.stdout + resumed.stderr
    assert b"200" in pikaci.log_lines()
    told = pikaci("trace", "fetch").stdout
    assert "no way out for" in told
    assert "0 cut, 0 waited in vain" in told


def test_a_command_whose_download_pikaci_s_death_cut_is_not_blamed(pikaci: Command) -> None:
    """It ends as infrastructure, and says why."""
    holding = Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(MIB))
            self.end_headers()
            self.wfile.write(bytes(1000))
            holding.set()
            Event().wait(100)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with server(Slow, http=True) as port:
        write_fetch(pikaci, port)
        running = pikaci.run_until("running", "run", "fetch")
        wait_until(lambda: b"begun" in pikaci.log_lines())
        pikaci.open_gate()
        assert holding.wait(60)
        kill(running)
        resumed = pikaci("resume")
    assert 4 == resumed.returncode, resumed.stdout + resumed.stderr
    listed = json.loads(pikaci("list", "--output", "json").stdout)
    shown = pikaci("trace", "fetch").stdout
    assert listed
    assert "had no way out for" in shown
    assert "1 connections were cut" in shown or "1 cut" in shown


def test_a_request_waits_no_longer_than_for_a_daemon(pikaci: Command) -> None:
    """Then the guest says what is wrong, in the first line."""
    with server(Web, http=True) as port:
        write_fetch(pikaci, port, more="[jobs.fetch.deadlines]\ndaemon_secs = 2\n")
        running = pikaci.run_until("running", "run", "fetch")
        wait_until(lambda: b"begun" in pikaci.log_lines())
        kill(running)
        pikaci.open_gate()
        (guest,) = pikaci.leases()

        def answered() -> bool:
            look = ["incus", "exec", "--project", "pikaci", guest, "--", "ls", contract().result]
            done = subprocess.run(look, capture_output=True, timeout=SECS, check=False)
            return done.returncode == 0

        wait_until(answered)
        resumed = pikaci("resume")
    assert b"503" in pikaci.log_lines()
    assert 0 == resumed.returncode


async def test_a_deadline_of_a_job_with_egress_is_its_own(runs: Runs) -> None:
    """A request that hangs is no reason to wait longer."""
    with server(Silent) as port:
        spec = JobSpec(
            command=f"curl --noproxy '' -sS --max-time 600 http://{HERE}:{port}/",
            egress=(f"{HERE}:{port}",),
            timeout_secs=2,
            deadlines=Deadlines(grace_secs=1),
        )
        job = await runs.run_one(spec)
    assert Outcome.TIMED_OUT is job.outcome
    assert Path(job.artifacts or "").exists()
