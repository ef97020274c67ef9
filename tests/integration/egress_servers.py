"""Servers on the host that guests with a way out reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any

from orchestrator.contract import contract
from orchestrator.journal import open_journal
from states import events as ev
from tests.integration.running import Runs

PORT = contract().egress.port


HERE = "127.0.0.1"


MIB = 1 << 20


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


class Deaf(BaseRequestHandler):
    """Takes nothing."""

    def handle(self) -> None:
        Event().wait(300)


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
