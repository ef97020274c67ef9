"""Fault points: the places where a process can be made to die, each with a name.

Nothing in the product knows of them. They are seen from outside: at the journal's SQL, at the
calls of incus, and at what Python does to files below the state root.

    journal:running:before      nothing of the entry is written
    journal:running:during      it is inserted, and its transaction is not committed
    journal:running:after       it is committed, and nobody was told
    journal:warm:after          the lease of a warm guest is: there is no entry of it
    incus:launch:before         incus was not asked
    incus:launch:during         it was asked, and has not answered
    incus:run:output            a piece of its output has come
    incus:launch:after          it has answered, and nobody was told
    incus:connect:during        ssh is making the connection to another host
    incus:send:during           a tree is on its way there
    host:mkdir:jobs             before that is done to a file of the state root

The second time that a process comes by a point, `#2` follows the name, and so on.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from orchestrator.contract import contract
from orchestrator.incus import Completed, Feed, Sink, Stdin

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# {audit event: which of its arguments is the path, or the descriptor, that is changed}
_CHANGES = {
    "os.mkdir": 0,
    "os.rename": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
    "os.chown": 0,
    "shutil.rmtree": 0,
    "fcntl.flock": 0,
}


class Points:
    """Counts the points that this process comes by, and kills it at the wanted one.

    `reached` is a file that gets their names, a line each. With `group` the whole process group
    is killed.
    """

    def __init__(self, wanted: str, *, reached: Path | None, group: bool) -> None:
        self._wanted = wanted
        self._group = group
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()  # the journal, and files, are written in threads
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self._file = os.open(reached, flags) if reached else None

    def reach(self, name: str) -> None:
        """The process is at this point now."""
        with self._lock:
            self._counts[name] += 1
            count = self._counts[name]
            full = name if count == 1 else f"{name}#{count}"
            if self._file is not None:
                os.write(self._file, full.encode() + b"\n")
            if full == self._wanted:
                if self._group:
                    os.killpg(0, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)


class AskedSpawn(Protocol):
    """A `Spawn` that calls `asked` when the request is on its way, and has no answer yet."""

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str],
        stdin: bytes | Stdin,
        sink: Sink | None,
        asked: Callable[[], None],
        feed: Feed | None = None,
    ) -> Completed: ...


class WatchedSpawn:
    """A `Spawn` with the points of every call."""

    def __init__(self, spawn: AskedSpawn, points: Points) -> None:
        self._spawn = spawn
        self._points = points

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str],
        stdin: bytes | Stdin,
        sink: Sink | None,
        feed: Feed | None = None,
    ) -> Completed:
        name = f"incus:{effect_of(argv)}"
        reach = self._points.reach

        async def seen(chunk: bytes) -> None:
            reach(f"{name}:output")
            assert sink is not None
            await sink(chunk)

        async def asked_for(late: Stdin) -> bytes:
            data = await late()
            reach(f"{name}:stdin")
            return data

        reach(f"{name}:before")
        ended = await self._spawn(
            argv,
            env=env,
            stdin=stdin if isinstance(stdin, bytes) else partial(asked_for, stdin),
            sink=sink and seen,
            asked=partial(reach, f"{name}:during"),
            feed=feed,
        )
        reach(f"{name}:after")
        return ended


def effect_of(argv: Sequence[str]) -> str:
    """What a command line of ours is for, in a word."""
    if argv[0] == "ssh":
        return "connect" if "-L" in argv else "send"
    verb = argv[1]
    if verb == "query" and "-X" in argv:
        if '"devices"' in argv[argv.index("-d") + 1]:
            return "hot-plug"
        return argv[argv.index("-X") + 1].lower()
    if verb == "query":
        place = argv[-1].partition("/1.0/")[2].partition("?")[0]
        return {"images": "find-image", "instances": "list"}.get(place, "status")
    if verb == "file":
        return "pull"
    if verb != "exec":
        return verb
    words = argv[argv.index("--") + 1 :]
    if words[-1] == contract().runner:  # also as what a wait becomes
        return "run"
    for script in ("ready", "collect", "output", "clean"):
        if f"pikaci-{script}" in words:
            return script
    if contract().egress.program in words:
        return "egress"
    if contract().runner not in words:
        return words[0]
    return words[words.index(contract().runner) + 1]


def watch_journal(points: Points) -> None:
    """From now on every entry that is written has its points.

    Entries that come at the same time share a transaction: which of them do is chance, and so is
    which is the first. So each has its own points, whatever it shares.
    """

    class Connection(sqlite3.Connection):
        tags: list[str]

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            match sql.split()[:3]:
                case ["BEGIN", *_]:
                    self.tags = []
                case ["INSERT", "INTO", "entries"]:
                    kind = json.loads(args[0][-1])["type"]
                    # Calls are noted beside what matters, in any number.
                    if kind != "called":
                        points.reach(f"journal:{kind}:before")
                        self.tags.append(kind)
                case ["INSERT", "INTO", "leases"] if not args[0][1]:
                    points.reach("journal:warm:before")
                    self.tags.append("warm")
                case ["COMMIT"] if self.tags:
                    for kind in self.tags:
                        points.reach(f"journal:{kind}:during")
                    cursor = super().execute(sql, *args)
                    for kind in self.tags:
                        points.reach(f"journal:{kind}:after")
                    return cursor
            return super().execute(sql, *args)

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]


def watch_files(points: Points, root: Path) -> None:
    """From now on every change of a file below `root` has a point, but for the journal's."""
    inside = f"{root}/"

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not flags & _WRITES:
                return
        elif event in _CHANGES:
            path = args[_CHANGES[event]]
            if isinstance(path, int):
                path = os.readlink(f"/proc/self/fd/{path}")
        else:
            return
        if isinstance(path, str | bytes | os.PathLike):
            name = os.fsdecode(path)
            if name.startswith(inside):
                points.reach(f"host:{event.rpartition('.')[2]}:{_place(name[len(inside) :])}")

    sys.addaudithook(audit)


def _place(path: str) -> str:
    """A path below the state root without its random parts."""
    first, *middle, last = path.split("/") if "/" in path else (path, path)
    return f"{first}/{last}" if len(middle) > 1 else first
