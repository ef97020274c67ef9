"""The incus command, awaited. Everything that pikaci asks of Incus goes through `Incus.run`.

`run` owns what every call needs: the project, a configuration directory of our own (a user's
can hold aliases and another default remote), bytes for stdin (an open pipe would be read for
ever), a deadline, and the mapping of errors to types. What starts the process is a `Spawn`:
`spawn_process`, or the fake's.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from orchestrator import incus_errors
from orchestrator.incus_errors import DeadlinePassed, IncusMissing

Sink = Callable[[bytes], Awaitable[None]]

MAX_STDERR_BYTES = 64 * 1024
# On a busy host Incus 6.0.4 loses all that a short exec prints, in some of a hundred cases, and
# says that it ended well. What must have printed something is asked so often.
SILENT_TRIES = 5
_CHUNK = 64 * 1024
# All that a client has of our environment, by name. The rest is not for it: among it are the
# jobs' secrets, which would stand in its /proc/PID/environ, and INCUS_REMOTE or INCUS_PROJECT,
# which would send a call elsewhere.
_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG",
    "INCUS_DIR", "INCUS_SOCKET",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK", "SSL_CERT_DIR", "SSL_CERT_FILE",
    "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "all_proxy", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip


@dataclass(frozen=True)
class Completed:
    """A command that ended. `stdout` is empty when a sink took it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Call:
    """What an observer is told of a call, when it ends. `exit_code` is None if it was cut off."""

    argv: tuple[str, ...]
    duration_secs: float
    exit_code: int | None
    error: str


class Spawn(Protocol):
    """Starts `argv`, feeds `stdin`, gives stdout to `sink` (or returns it), awaits the end.

    When cancelled, the process and its group are killed and reaped before it returns.
    """

    async def __call__(
        self, argv: Sequence[str], *, env: dict[str, str], stdin: bytes, sink: Sink | None
    ) -> Completed: ...


async def spawn_process(
    argv: Sequence[str], *, env: dict[str, str], stdin: bytes, sink: Sink | None
) -> Completed:
    """Run a real process in a session of its own, so that a Ctrl-C at our terminal is ours."""
    collected: list[bytes] = []

    async def collect(chunk: bytes) -> None:
        collected.append(chunk)

    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=env,
    )
    stderr = bytearray()
    try:
        async with trio.open_nursery() as nursery:
            if stdin:
                nursery.start_soon(_feed, process, stdin)
            nursery.start_soon(_read_stderr, process, stderr)
            await _read_stdout(process, sink or collect)
            exit_code = await process.wait()
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await trio.aclose_forcefully(stream)
    return Completed(tuple(argv), exit_code, b"".join(collected), bytes(stderr))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def _feed(process: trio.Process, data: bytes) -> None:
    assert process.stdin is not None
    try:
        async with process.stdin:
            await process.stdin.send_all(data)
    except trio.BrokenResourceError:
        pass  # it ended without reading all: its exit code tells why


async def _read_stdout(process: trio.Process, sink: Sink) -> None:
    assert process.stdout is not None
    while chunk := await process.stdout.receive_some(_CHUNK):
        await sink(bytes(chunk))


async def _read_stderr(process: trio.Process, into: bytearray) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.receive_some(_CHUNK):
        into += chunk[: MAX_STDERR_BYTES - len(into)]


class _Instance(msgspec.Struct):
    status: str


class Incus:
    """One daemon's one project, as the `incus` command reaches it.

    `conf` is a directory of ours for INCUS_CONF. `observe` hears of every call as it ends.
    """

    def __init__(
        self,
        conf: Path,
        *,
        project: str = "pikaci",
        remote: str = "local",
        program: str = "incus",
        spawn: Spawn = spawn_process,
        observe: Callable[[Call], None] | None = None,
    ) -> None:
        self.conf = conf
        self.project = project
        self.remote = remote
        self.program = program
        self._spawn = spawn
        self._observe = observe

    def observed(self, observe: Callable[[Call], None]) -> Incus:
        """The same daemon, with another observer."""
        return Incus(
            self.conf,
            project=self.project,
            remote=self.remote,
            program=self.program,
            spawn=self._spawn,
            observe=observe,
        )

    def argv(self, *args: str) -> tuple[str, ...]:
        """The very command that `run` runs; what `--dry-run` prints."""
        return (self.program, args[0], "--project", self.project, *args[1:])

    def name(self, resource: str) -> str:
        """An instance's or image's name with its remote in front."""
        return f"{self.remote}:{resource}"

    async def run(
        self,
        *args: str,
        deadline_secs: float,
        stdin: bytes = b"",
        sink: Sink | None = None,
        check: bool = True,
        setting: str = "",
    ) -> Completed:
        """Run `incus ARGS...` in the project, to its end.

        Raises a type of `IncusError`: `DeadlinePassed` when it took longer than
        `deadline_secs` (which `setting` sets, if it has a name), and with `check` what
        `incus_errors` reads from its stderr when the exit code is not 0. (An exec's code may be
        the command's own: pass `check=False`.)
        """
        return await self._call(
            self.argv(*args),
            deadline_secs=deadline_secs,
            stdin=stdin,
            sink=sink,
            check=check,
            setting=setting,
        )

    async def run_global(self, *args: str, deadline_secs: float, stdin: bytes = b"") -> Completed:
        """The same for what lies outside any project (storage pools, projects, the server)."""
        return await self._call(
            (self.program, *args), deadline_secs=deadline_secs, stdin=stdin, sink=None, check=True
        )

    async def instance_status(self, instance: str, *, deadline_secs: float) -> str:
        """Incus's word for the state that an instance is in ("Running", "Stopped", "Frozen").

        "Running" also for a guest that announced itself, which Incus calls Ready.
        """
        path = f"{self.remote}:/1.0/instances/{instance}?project={self.project}"
        completed = await self.run_global("query", path, deadline_secs=deadline_secs)
        status = msgspec.json.decode(completed.stdout, type=_Instance).status
        return "Running" if status == "Ready" else status

    async def _call(
        self,
        argv: tuple[str, ...],
        *,
        deadline_secs: float,
        stdin: bytes,
        sink: Sink | None,
        check: bool,
        setting: str = "",
    ) -> Completed:
        self.conf.mkdir(parents=True, exist_ok=True, mode=0o700)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        env = {**inherited, "INCUS_CONF": str(self.conf), "LC_ALL": "C.UTF-8"}
        began = trio.current_time()
        completed: Completed | None = None
        error = ""
        try:
            with trio.move_on_after(deadline_secs):
                completed = await self._spawn(argv, env=env, stdin=stdin, sink=sink)
            if completed is None:
                raise DeadlinePassed(
                    f"incus {incus_errors.verb(argv)} did not end within {deadline_secs:g} s",
                    details=f"$ {' '.join(argv)}",
                    resolution="`pikaci doctor` says whether the daemon answers"
                    + (f"; deadlines.{setting} sets the limit" if setting else ""),
                )
            if check and completed.exit_code != 0:
                raise incus_errors.failed_call(argv, completed.exit_code, completed.stderr)
        except FileNotFoundError:
            error = f"there is no command {self.program}"
            raise IncusMissing(error, resolution=IncusMissing.hint) from None
        except incus_errors.IncusError as failure:
            error = failure.brief
            raise
        finally:
            if self._observe is not None:
                code = completed.exit_code if completed is not None else None
                self._observe(Call(argv, trio.current_time() - began, code, error))
        return completed
