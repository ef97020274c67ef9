"""Starts pikaci fast: one process that has imported everything forks for each.

What is started has its own pid, directory, variables and descriptors, and ends as the command does.
How Python starts is not seen: tests of imports, locales or closed descriptors use `subprocess`.

    python -m tests.forks    (a socket is its standard input)
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
MAX_BYTES = 1 << 20
# More than any command of a test takes, on a busy machine too.
MAX_SECS = 600
# What of signals a process inherits, and pikaci may be told of.
INHERITED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
PIKACI, ON_THE_FAKE = "orchestrator.cli", "tests.terminal.process"
# Each is a program, or of tests alone.
NOT_IMPORTED = ("orchestrator.fake_incus", "orchestrator.testing")


class Forked:
    """A pikaci process, with the names of `subprocess.Popen`. Its streams are pipes of bytes.

    `program` is a module with a `main`: pikaci, or a test's pikaci on another Incus.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        text: bool = False,
        program: str = PIKACI,
        process_group: int | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.returncode: int | None = None
        self.args = ["pikaci", *args]
        request = {
            "program": program,
            "args": self.args,
            "env": dict(env),
            "cwd": str(cwd),
            "group": process_group,
            "session": start_new_session,
            "ignored": [signal.getsignal(number) == signal.SIG_IGN for number in INHERITED],
        }
        theirs: list[int] = []
        self.stdin = _stream(stdin, "w", theirs, text=text)
        self.stdout: Any = _stream(stdout, "r", theirs, text=text)
        self.stderr: Any = _stream(stderr, "r", theirs, text=text)
        self._text = text
        # Packets: the pid and the exit code of a short process are never read as one number.
        self._told, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            message = json.dumps(request).encode()
            socket.send_fds(_forker(), [message], [*theirs, answers.fileno()])
        finally:
            answers.close()
            for descriptor in theirs:
                os.close(descriptor)
        self.pid = int(self._told.recv(100))

    def poll(self) -> int | None:
        """The exit code; None while it lives."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal that killed it; `TimeoutExpired` while it lives."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                said = self._told.recv(100)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self.returncode = int(said)
            self._told.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """What it writes to its pipes until it ends; without a time-out, it is killed at last."""
        if timeout is None:
            try:
                return self.communicate(MAX_SECS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        give_up = time.monotonic() + timeout
        got: dict[Any, list[bytes]] = {pipe: [] for pipe in (self.stdout, self.stderr) if pipe}
        with selectors.DefaultSelector() as selector:
            for pipe in got:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                left = give_up - time.monotonic()
                if left <= 0:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                for key, _ in selector.select(left):
                    chunk = os.read(key.fd, 1 << 16)
                    got[key.fileobj].append(chunk)
                    if not chunk:
                        selector.unregister(key.fileobj)
        self.wait(max(0.01, give_up - time.monotonic()))
        whole = [self._whole(got[pipe]) if pipe else None for pipe in (self.stdout, self.stderr)]
        for pipe in got:
            pipe.close()
        return whole[0], whole[1]

    def _whole(self, chunks: Sequence[bytes]) -> Any:
        whole = b"".join(chunks)
        return whole.decode().replace("\r\n", "\n").replace("\r", "\n") if self._text else whole

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            # Between its end and the word of it, as `subprocess` has it.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()


def run(args: Sequence[str], *, timeout: float = 60, **options: Any) -> Any:
    """Run `pikaci ARGS`, and wait for it. If it takes too long, it is killed and the test fails."""
    process = Forked(args, **options)
    try:
        stdout, stderr = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)


def _stream(what: Any, mode: str, theirs: list[int], *, text: bool) -> Any:
    """Our end of a pipe, if it is to be one; their end is added to `theirs`."""
    if what == subprocess.PIPE:
        read, write = os.pipe()
        ours, end = (read, write) if mode == "r" else (write, read)
        theirs.append(end)
        return open(ours, mode if text else f"{mode}b", encoding="utf-8" if text else None)
    if what == subprocess.DEVNULL:
        theirs.append(os.open(os.devnull, os.O_RDWR))
    else:
        theirs.append(os.dup(what if isinstance(what, int) else what.fileno()))
    return None


@cache
def _forker() -> socket.socket:
    """The way to the one that forks; it is started at the first use, and dies with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs.fileno(),
        start_new_session=True,
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def serve(ours: socket.socket) -> str:
    """Fork for every request. Returns in each child, with the program that it is to be."""
    selector = selectors.DefaultSelector()
    selector.register(ours, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                pid, answers = key.data
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                selector.unregister(key.fd)
                os.close(key.fd)
                with answers, suppress(OSError):  # nobody may want to know
                    answers.send(str(code).encode())
                continue
            message, descriptors, _, _ = socket.recv_fds(ours, MAX_BYTES, 4)
            if not message:
                os._exit(0)  # whoever started it has gone
            request = json.loads(message)
            pid = os.fork()
            if pid == 0:
                for open_socket in (ours, *(data[1] for data in _data(selector))):
                    open_socket.detach()  # its number may soon be another's
                selector.close()
                _become(request, descriptors[:3])
                return str(request["program"])
            if request["group"] is not None:
                os.setpgid(pid, request["group"])
            answers = socket.socket(fileno=descriptors.pop())
            for descriptor in descriptors:
                os.close(descriptor)
            with suppress(OSError):
                answers.send(str(pid).encode())
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))


def _data(selector: selectors.BaseSelector) -> list[Any]:
    return [key.data for key in selector.get_map().values() if key.data is not None]


def _become(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if request["session"]:
        os.setsid()
    if request["group"] is not None:
        os.setpgid(0, request["group"])
    for number, ignored in zip(INHERITED, request["ignored"], strict=True):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if ignored else default)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["args"]


def _modules() -> Iterator[str]:
    package = importlib.import_module("orchestrator")
    for found in pkgutil.walk_packages(package.__path__, "orchestrator."):
        if not found.name.startswith(NOT_IMPORTED):
            yield found.name


if __name__ == "__main__":
    for module in _modules():
        importlib.import_module(module)
    importlib.import_module(ON_THE_FAKE)
    # Else each child, at its end, looks through all that was imported, and so copies it.
    gc.freeze()
    importlib.import_module(serve(socket.socket(fileno=os.dup(0)))).main()
