"""Starts many processes fast: one that has imported everything forks for each.

python -m tests.kill.starter SOCKET
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from tests.kill.process import Options, live

SECS = 60
# What the commands import when they are called, so that no process has to.
COMMON = (
    *(
        "cli.cancel",
        "cli.lines_watch",
        "cli.command_watch",
        "cli.resume",
        "cli.run",
        "cli.signals",
        "cli.summary",
    ),
    *("engine", "jobfile", "session.reaper", "report", "snapshot.snapshot"),
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
        output = root.parent / f"{args[0]}.txt"
        start = Start(options, str(root), str(workspace), str(output), list(args))
        with trio.fail_after(SECS):
            async with await trio.open_unix_socket(self._address) as stream:
                await stream.send_all(msgspec.json.encode(start) + b"\n")
                code = int(await stream.receive_some())
        return code, output.read_text()


@asynccontextmanager
async def open_starter(address: Path) -> AsyncIterator[Starter]:
    """A starter, while the block runs."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address))
    listener.listen(50)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kill.starter"], stdin=listener.fileno()
    )
    listener.close()
    try:
        yield Starter(str(address))
    finally:
        process.kill()
        process.wait()


def serve(listener: socket.socket) -> None:
    """Fork for every client: a minder, that waits for the process and tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # minders need no burial
    while True:
        client, _ = listener.accept()
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
        importlib.import_module(f"orchestrator.{module}")
    serve(socket.socket(fileno=os.dup(0)))
