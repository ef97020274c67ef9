"""docs/tutorial.md, done as a reader does it: in order, in a terminal, on the real Incus.

The page is the only source. A block whose first line names a file is that file; commands are in blocks
of `console`. Of what is shown, times, ids and sizes may be others; a line `...` is any lines, and `...`
within a line any text.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.journal import open_journal
from tests.pages import DOCS, Block, blocks, typed
from tests.terminal.screen import Terminal

PAGE = (DOCS / "tutorial.md").read_text()
SECOND = "in a second terminal"
PORT = "8443"
COLUMNS, LINES = 100, 60
SECS = 300
CHANGING = (
    (r"\bjust now\b", "1 s ago"),  # where a reader is fast
    (r"\d+(?:\.\d+)? (?:ms|s|min)(?: \d+ s)?\b", "TIME"),
    (r"\b[0-9a-f]{12}\b", "HASH"),
    (r"\b[a-z2-9]{8}\b", "ID"),
    (r"\d+(?:\.\d+)? (?:B|KiB|MiB)\b", "SIZE"),
    (r" +", " "),
)

pytestmark = pytest.mark.incus


class Reader:
    """Someone at two terminals, who does what the page says."""

    def __init__(self, home: Path) -> None:
        self._home = self._directory = home
        self._port = str(_free_port())
        self._env = {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._second: Terminal | None = None

    def follow(self, block: Block) -> None:
        """Do what a block says, and compare what is shown."""
        if block.language == "console":
            for command, shown in typed(block.text):
                if block.more == SECOND:
                    self._start(command, shown)
                    continue
                lines = self._type(command)
                if not are(shown, lines):
                    pytest.fail("\n".join([f"$ {command}", *lines, "--- the page has", shown]))
        elif block.more:
            (self._directory / block.more).write_text(block.text)

    def interrupt(self) -> int:
        """Press Ctrl-C in the second terminal; the exit code."""
        assert self._second is not None
        self._second.interrupt()
        return self._second.wait()

    def leave(self) -> list[str]:
        """Leave nothing running; the instances that are left."""
        if self._second is not None and self._second.process.poll() is None:
            os.kill(self._second.process.pid, signal.SIGKILL)
            self._second.wait()
        return [
            name
            for path in self._home.glob("state/pikaci/*/journal.sqlite3")
            for name in instances(path)
        ]

    def _type(self, command: str) -> list[str]:
        here = self._home / "here"
        done = f"{command}\npwd >{shlex.quote(str(here))}"
        terminal = self._terminal("timeout", "--foreground", str(SECS), "bash", "-c", done)
        terminal.wait()
        self._directory = Path(here.read_text().rstrip("\n"))
        return self._shown(terminal)

    def _start(self, command: str, shown: str) -> None:
        self._second = self._terminal("bash", "-c", f"exec {command}")
        self._second.read_until(lambda now: are(shown, self._shown(now)))

    def _terminal(self, *args: str) -> Terminal:
        return Terminal(
            [arg.replace(PORT, self._port) for arg in args],
            columns=COLUMNS,
            lines=LINES,
            cwd=self._directory,
            env=self._env,
            real=True,
        )

    def _shown(self, terminal: Terminal) -> list[str]:
        return [line.replace(self._port, PORT) for line in terminal.all_lines]


def are(expected: str, lines: list[str]) -> bool:
    """Whether the lines are those of the page; what shows nothing there shows nothing."""
    parts = [
        "(?:.*\n)*?" if line == "..." else f"{_pattern(line)}\n" for line in expected.splitlines()
    ]
    return bool(re.fullmatch("".join(parts), "".join(f"{_normal(line)}\n" for line in lines)))


def _pattern(line: str) -> str:
    return ".*".join(re.escape(_normal(part)) for part in line.rstrip().split("..."))


def _normal(line: str) -> str:
    for pattern, word in CHANGING:
        line = re.sub(pattern, word, line)
    return line.rstrip()


def instances(journal: Path) -> list[str]:
    """What Incus has of a state root."""
    with open_journal(journal) as opened:
        owner = f"user.pikaci.owner={opened.owner}"
    listed = subprocess.run(
        ["incus", "list", "local:", owner, "--project", "pikaci", "-f", "csv", "-c", "n"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return listed.stdout.split()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """With a home of their own, and nothing left behind."""
    made = Reader(tmp_path)
    yield made
    assert [] == made.leave()


def test_the_page_is_true(reader: Reader) -> None:
    """Every command, and what it shows; at the end the service is stopped."""
    for block in blocks(PAGE):
        reader.follow(block)

    assert 0 == reader.interrupt()
