"""Runs the incus command. Every call that pikaci makes to Incus goes through `Incus`.

`perform` handles what all commands share: the project, our own configuration directory (a user's
may define aliases and another default remote), bytes for stdin (incus would read an open pipe
forever), the deadline, the bound on output, retries, and the mapping of errors to types. A `Spawn`
starts the process: `spawn_process`, or the fake's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
import trio

from orchestrator.incus import errors as incus_errors
from orchestrator.incus.effect import NEVER, Deadline, Effect, Retry, Stdin, request
from orchestrator.incus.errors import (
    AnswerUnreadable,
    DeadlinePassed,
    IncusMissing,
    OutputTooLong,
)
from orchestrator.incus.host import Host
from orchestrator.incus.link import Link
from orchestrator.incus.process import Completed, Feed, Sink, Spawn, spawn_process
from orchestrator.incus.retries import finish_despite_cancel, retrying
from orchestrator.incus.terminal import run_on_terminal

_T = TypeVar("_T")
Into = Callable[[], AbstractAsyncContextManager[Sink]]
# A block that raises an `IncusError`, before or within, when what its call depends on is away.
Presence = Callable[[], AbstractAsyncContextManager[None]]
# The same for a host that is far away; it gets how many bytes the call has printed.
Alive = Callable[[Callable[[], int]], AbstractAsyncContextManager[None]]

# The variables that the client inherits. The rest of our environment stays out: it may hold jobs'
# secrets, which would show in /proc/PID/environ, and INCUS_REMOTE or INCUS_PROJECT, which would
# redirect the call.
_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG",
    "INCUS_DIR", "INCUS_SOCKET",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK", "SSL_CERT_DIR", "SSL_CERT_FILE",
    "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "all_proxy", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One finished try of an effect, as reported to an observer.

    `exit_code` is None if the command was cut off.
    """

    effect: str
    argv: tuple[str, ...]
    duration_secs: float
    exit_code: int | None
    error: str


def to_sink(sink: Sink) -> Into:
    """Send the output of every try to the same sink."""

    @asynccontextmanager
    async def into() -> AsyncIterator[Sink]:
        yield sink

    return into


class Incus:
    """One project of one daemon, reached through the `incus` command.

    `conf` is our own directory for INCUS_CONF. `observe` is called after every call.
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
        self.host = Host(project=project, remote=remote)
        self.project = project
        self.remote = remote
        self.program = program
        self._spawn = spawn
        self._observe = observe
        self._link: Link | None = None
        self._presence: Presence = nullcontext
        self._alive: Alive | None = None
        self._hurry: Callable[[], Awaitable[None]] = trio.sleep_forever
        self._conf_is_there = False

    def during(self, presence: Presence) -> Incus:
        """The same daemon; each try of a command runs in such a block, within its deadline."""
        same = copy(self)
        same._presence = presence
        return same

    def while_alive(self, alive: Alive) -> Incus:
        """The same daemon; each try of a command that may be cut runs in such a block, too."""
        same = copy(self)
        same._alive = alive
        return same

    def hurried(self, hurry: Callable[[], Awaitable[None]]) -> Incus:
        """The same daemon; a cancelled command's `answer_secs` are over when `hurry` returns."""
        same = copy(self)
        same._hurry = hurry
        return same

    def observed(self, observe: Callable[[Call], None]) -> Incus:
        """The same daemon, with another observer."""
        same = copy(self)
        same._observe = observe
        return same

    def of(self, host: Host, link: Link | None = None, *, conf: Path | None = None) -> Incus:
        """A client like this one for another host, which may need another configuration."""
        same = copy(self)
        if conf is not None:
            same.conf, same._conf_is_there = conf, False
        same.project, same.remote, same.host, same._link = host.project, host.remote, host, link
        return same

    def argv(self, effect: Effect) -> tuple[str, ...]:
        """The exact command that `perform` runs and `--dry-run` prints."""
        verb, *rest = effect.args
        project = ("--project", self.project) if effect.in_project else ()
        return (self.program, verb, *project, *rest)

    def name(self, resource: str) -> str:
        """The name of an instance or image, with the remote as prefix."""
        return f"{self.remote}:{resource}"

    def path(self, path: str, *, in_project: bool = True) -> str:
        """A path of Incus's API, with the remote as prefix and the project as parameter."""
        mark = "&" if "?" in path else "?"
        project = f"{mark}project={quote(self.project)}" if in_project else ""
        return f"{self.remote}:{path}{project}"

    async def perform(
        self, effect: Effect, *, into: Into | None = None, feed: Feed | None = None
    ) -> Completed:
        """Run the command to its end, with retries as its retry rule says.

        The output goes `into` a sink opened for each try; without `into` it is returned. `feed`
        writes the command's stdin, after the effect's own, for as long as it runs. Raises a
        subclass of `IncusError`: `DeadlinePassed`, `OutputTooLong`, or the one that `incus_errors`
        derives from stderr. A broken connection is always an error, whatever the exit code.
        Exceptions of a sink or of the effect's `stdin` propagate unchanged. A cancellation kills
        the command; Incus may or may not have carried it out.
        """
        silent = 0

        async def once() -> Completed:
            nonlocal silent
            while True:
                completed, printed = await self._once(effect, into, feed)
                silent += 1
                if printed or completed.exit_code != 0 or silent >= effect.retry.silent_tries:
                    return completed

        return await retrying(once, on=effect.retry.on, secs=effect.retry.secs)

    async def hand_terminal(self, effect: Effect) -> int:
        """Run the command on our terminal, however long it takes, and return its exit code.

        The effect's deadline, bounds and retries do not apply: the command is a person's. Raises
        the errors of the link, and `IncusMissing`. A cancellation ends the command.
        """
        argv = self.argv(effect)
        if self._link is not None:
            await self._link.up()
        await self._make_conf()
        env = {**self._environment(), "TERM": os.environ.get("TERM", "dumb")}
        began = trio.current_time()
        code: int | None = None
        try:
            code = await run_on_terminal(argv, env=env)
        except FileNotFoundError:
            raise self._missing() from None
        finally:
            if self._observe is not None:
                self._observe(Call(effect.name, argv, trio.current_time() - began, code, ""))
        return code

    async def query(
        self,
        path: str,
        kind: type[_T],
        *,
        deadline: Deadline,
        retry: Retry = NEVER,
        in_project: bool = True,
    ) -> _T:
        """The answer of Incus's API at this path, decoded as this type.

        Raises `AnswerUnreadable` if it does not decode, and the errors of `perform`.
        """
        effect = request(self.path(path, in_project=in_project), deadline=deadline)

        async def once() -> _T:
            completed, _ = await self._once(effect, None, None)
            try:
                # For an empty list the command prints nothing.
                return msgspec.json.decode(completed.stdout.strip() or b"[]", type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                shown = completed.stdout[:200].decode("utf-8", "replace")
                raise AnswerUnreadable(
                    f"incus query {path.partition('?')[0]} gave an answer that cannot be read",
                    details=f"{error}: {shown!r}",
                ) from None

        return await retrying(once, on=retry.on, secs=retry.secs)

    async def _once(
        self, effect: Effect, into: Into | None, feed: Feed | None
    ) -> tuple[Completed, int]:
        """Make one try; returns also how many bytes it printed."""
        if effect.answer_secs:
            return await finish_despite_cancel(
                lambda: self._try(effect, into, feed), secs=effect.answer_secs, hurry=self._hurry
            )
        return await self._try(effect, into, feed)

    async def _try(
        self, effect: Effect, into: Into | None, feed: Feed | None
    ) -> tuple[Completed, int]:
        argv = self.argv(effect)
        output = _Output(argv, effect.max_bytes)
        began: float | None = None
        completed: Completed | None = None
        error = ""
        try:
            if self._link is not None:
                await self._link.up()
            with trio.move_on_after(effect.deadline.secs):
                stdin: bytes | Stdin = b""
                if effect.stdin is not None:
                    stdin = effect.stdin if effect.starts_first else await effect.stdin()
                await self._make_conf()
                alive = self._while_alive(effect, output)
                async with self._presence(), alive, (into or output.keep)() as sink:
                    began = trio.current_time()
                    more = {} if feed is None else {"feed": feed}
                    completed = await self._spawn(
                        argv,
                        env=self._environment(),
                        stdin=stdin,
                        sink=output.bounded(sink),
                        **more,
                    )
            if completed is None:
                raise _late(effect, argv, self.host.on)
            completed = output.of(completed)
            broken = incus_errors.broken_off(
                argv, completed.exit_code, completed.stderr, on=self.host.on
            )
            if broken is not None:
                raise broken
            if not effect.accepts(completed.exit_code):
                raise incus_errors.failed_call(
                    argv, completed.exit_code, completed.stderr, on=self.host.on
                )
        except FileNotFoundError:
            missing = self._missing()
            error = missing.brief
            raise missing from None
        except incus_errors.IncusError as failure:
            error = failure.brief
            raise
        finally:
            if self._observe is not None and began is not None:
                code = completed.exit_code if completed is not None else None
                self._observe(Call(effect.name, argv, trio.current_time() - began, code, error))
        return completed, output.size

    def _missing(self) -> IncusMissing:
        brief = f"the command {self.program} is not installed"
        return IncusMissing(brief, resolution=IncusMissing.hint)

    def _while_alive(self, effect: Effect, output: _Output) -> AbstractAsyncContextManager[None]:
        if self._alive is None or not effect.may_be_cut:
            return nullcontext()
        return self._alive(lambda: output.size)

    async def _make_conf(self) -> None:
        if not self._conf_is_there:
            try:
                await trio.to_thread.run_sync(
                    lambda: self.conf.mkdir(parents=True, exist_ok=True, mode=0o700)
                )
            except OSError as error:
                raise IncusMissing(
                    f"the incus command has no directory for its configuration: {self.conf}:"
                    f" {error.strerror}",
                    resolution="set HOME or XDG_STATE_HOME to a directory that you may write to, or"
                    " name one with --state-root",
                ) from None
            self._conf_is_there = True

    def _environment(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # The client makes its cache even if it has nothing to put there.
        ours = {"INCUS_CONF": str(self.conf), "INCUS_CACHE": str(self.conf / "cache")}
        link = {} if self._link is None else self._link.environment()
        return {**inherited, **ours, **link, "LC_ALL": "C.UTF-8"}


class _Output:
    """The output of one try: counted, bounded, and kept if there is no sink."""

    def __init__(self, argv: tuple[str, ...], max_bytes: int) -> None:
        self.size = 0
        self._argv = argv
        self._max_bytes = max_bytes
        self._kept = bytearray()

    @asynccontextmanager
    async def keep(self) -> AsyncIterator[Sink]:
        async def sink(chunk: bytes) -> None:
            self._kept += chunk

        yield sink

    def bounded(self, sink: Sink) -> Sink:
        async def bounded(chunk: bytes) -> None:
            left = self._max_bytes - self.size
            self.size += len(chunk)
            if chunk := chunk[: max(0, left)]:
                await sink(chunk)
            if self.size > self._max_bytes:
                raise OutputTooLong(
                    f"incus {incus_errors.verb(self._argv)} printed more than"
                    f" {self._max_bytes} bytes, and was stopped",
                    details=incus_errors.pasted(self._argv),
                )

        return bounded

    def of(self, completed: Completed) -> Completed:
        return Completed(completed.argv, completed.exit_code, bytes(self._kept), completed.stderr)


def _late(effect: Effect, argv: tuple[str, ...], on: str) -> DeadlinePassed:
    limit = effect.deadline
    return DeadlinePassed(
        f"incus {incus_errors.verb(argv)}{on} did not end within {limit.secs:g} s",
        details=incus_errors.pasted(argv),
        resolution=f"`{incus_errors.look_command(on)}` says whether the daemon answers"
        + (f"; {limit.set_by}" if limit.set_by else ""),
    )
