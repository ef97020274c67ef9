"""Starts many processes fast: one that has imported everything forks for each.

python -m tests.kill.starter PID_OF_THE_TESTS
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import trio

from tests.kill.process import Options, live

SECS = 240  # a guard: a busy machine needs minutes to make an image
LOOK_SECS = 5
# What the commands import when they are called, so that no process has to.
COMMON = (
    "orchestrator.cli.cancel",
    "orchestrator.cli.documents",
    "orchestrator.cli.find",
    "orchestrator.cli.resume_jobs",
    "orchestrator.cli.command_watch",
    "orchestrator.cli.ending",
    "orchestrator.cli.exit_codes",
    "orchestrator.cli.follow",
    "orchestrator.cli.gc",
    "orchestrator.cli.group",
    "orchestrator.cli.lines_watch",
    "orchestrator.cli.output",
    "orchestrator.cli.resume",
    "orchestrator.cli.run",
    "orchestrator.cli.run_request",
    "orchestrator.cli.signals",
    "orchestrator.cli.summary",
    "orchestrator.cli.watch",
    "orchestrator.egress.proxy",
    "orchestrator.engine",
    "orchestrator.jobfile",
    "orchestrator.report",
    "orchestrator.session.gc",
    "orchestrator.session.reaper",
    "orchestrator.snapshot.snapshot",
    "rich.cells",
)


class Start(msgspec.Struct):
    """What to start. Its output goes to a file; its standard input is empty."""

    options: Options
    root: str
    workspace: str
    output: str
    args: list[str]


class Starter:
    """The testing side."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def run(
        self, options: Options, root: Path, workspace: Path, args: Sequence[str]
    ) -> tuple[int, str]:
        """Run `pikaci ARGS` to its end or its death: its exit code (minus a signal), its output."""
        output = root.parent / f"{'warm' if options.warm else args[0]}.txt"
        start = Start(options, str(root), str(workspace), str(output), list(args))
        with trio.fail_after(SECS):
            async with await trio.open_unix_socket(self._address) as stream:
                await stream.send_all(msgspec.json.encode(start) + b"\n")
                code = int(await stream.receive_some())
        return code, output.read_text()


@contextmanager
def open_starter(address: Path) -> Iterator[Starter]:
    """A starter, while the block runs."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address))
    listener.listen(50)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kill.starter", str(os.getpid())], stdin=listener.fileno()
    )
    listener.close()
    try:
        yield Starter(str(address))
    finally:
        process.kill()
        process.wait()


def serve(listener: socket.socket, tests: int) -> None:
    """Fork for every client: a minder, that waits for the process and tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # minders need no burial
    listener.settimeout(LOOK_SECS)
    while True:
        try:
            client, _ = listener.accept()
        except TimeoutError:
            if os.getppid() != tests:
                return  # whoever started it was killed
            continue
        if os.fork() == 0:
            listener.close()
            _mind(client)
        client.close()


def _mind(client: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with client.makefile("rb") as lines:
        start = msgspec.json.decode(lines.readline(), type=Start)
    pid = os.fork()
    if pid == 0:
        client.close()
        _become(start)
    _, status = os.waitpid(pid, 0)
    client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(start: Start) -> None:
    code: object = 1
    try:
        os.setsid()
        os.chdir(start.workspace)
        output = os.open(start.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        empty = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((empty, output, output)):
            os.dup2(file, number)
        live(start.options, Path(start.root), start.args)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    for module in COMMON:
        importlib.import_module(module)
    gc.freeze()  # else each that is forked looks through all of it, and so copies it
    serve(socket.socket(fileno=os.dup(0)), tests=int(sys.argv[1]))
