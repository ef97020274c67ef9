"""The way to a host over ssh: one connection, made when it is needed, and made anew when it breaks.

The connection forwards Incus's socket to one of ours, and has a shell at the other end, which
answers questions without another login. The connection ends with this process: then its stdin is
closed. The socket gives control over the host, so it is 0600 in a 0700 directory, and goes with the
connection.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import trio

from orchestrator.hosts.far_shell import Answer, Frame, framed, lines_of, quoted
from orchestrator.hosts.private_directory import PrivateDirectory
from orchestrator.hosts.settings import HostSettings
from orchestrator.hosts.ssh_command import (
    environment,
    forwarded_socket,
    forwarding_forbidden,
    session_argv,
    shell_argv,
    ssh_error,
)
from orchestrator.incus import Feed, spawn_process
from orchestrator.incus.errors import DaemonUnreachable, HostRefused, IncusError, OutcomeUnknown

# Login, the user's start-up files there, and the first answer.
UP_SECS = 45.0
MAX_PRINTED = 2000
QUESTION_SECS = 30.0

_GREETING = """\
echo home "$HOME"
echo uid "$(id -u)"
if [ ! -S {socket} ]; then echo socket missing
elif [ ! -w {socket} ]; then echo socket denied
elif grep -qF " "{socket} /proc/net/unix; then echo socket open
else echo socket closed; fi"""


class SshLink:
    """The way to one host, for many tasks at once. `nursery` holds the connection.

    Nothing is done before the first `up`. The owner must `close` it.
    """

    def __init__(self, name: str, settings: HostSettings, nursery: trio.Nursery) -> None:
        self.name = name
        self.settings = settings
        self._private: PrivateDirectory | None = None
        self._nursery = nursery
        self._session: _Session | None = None
        self._was_up = False

    async def up(self) -> None:
        """Return when the connection is there; see `Link.up`."""
        await self._up()

    def close(self) -> None:
        """End the connection, and remove what was made for it here."""
        if self._session is not None:
            self._session.close()
        if self._private is not None:
            self._private.close()
            self._private = None

    @property
    def _directory(self) -> Path:
        if self._private is None:
            self._private = PrivateDirectory()
        return self._private.path

    def environment(self) -> Mapping[str, str]:
        """The variables that lead the incus command to the forwarded socket."""
        return {"INCUS_SOCKET": str(forwarded_socket(self._directory))}

    @property
    def home(self) -> str:
        """The user's home directory there, "~" before the host was reached."""
        return self._session.home if self._session is not None else "~"

    @property
    def uid(self) -> int:
        """The number of the user there; 0 before the host was reached."""
        return self._session.uid if self._session is not None else 0

    async def ask(self, script: str, *, secs: float = QUESTION_SECS) -> Answer:
        """Run a short script there, without stdin; returns its answer, whatever its exit code.

        Raises the errors of `up`, or `OutcomeUnknown` if the connection breaks or no answer comes.
        """
        session = await self._up()
        return await session.ask(script, secs=secs)

    async def feed(self, script: str, feed: Feed, *, secs: float) -> Answer:
        """Run a script there, with what `feed` writes as its stdin. Errors as for `ask`."""
        await self._up()
        word = _word()
        frame = Frame(word)

        async def sink(chunk: bytes) -> None:
            frame.feed(chunk)

        with trio.move_on_after(secs):
            completed = await spawn_process(
                shell_argv(self.settings, self._directory),
                env=environment(os.environ),
                stdin=framed(script, word, reads=True),
                sink=sink,
                feed=feed,
            )
            if frame.answer is not None:
                return frame.answer
            said = completed.stderr.decode("utf-8", "replace")
            raise OutcomeUnknown(
                f"the connection to the host {self.name} broke", details=lines_of(said)
            )
        raise OutcomeUnknown(f"the host {self.name} did not answer within {secs:g} s")

    async def _up(self) -> _Session:
        session = self._session
        if session is None or session.error is not None:
            session = self._session = _Session(self.name, self.settings, self._directory, session)
            self._nursery.start_soon(session.run)
        await session.settled.wait()
        if not session.was_up:
            assert session.error is not None
            raise self._as_seen(session.error)
        self._was_up = True
        return session

    def _as_seen(self, error: IncusError) -> IncusError:
        """A host that let us in before may do so again: jobs there wait for that."""
        kind = DaemonUnreachable if self._was_up else type(error)
        return kind(error.brief, details=error.details, resolution=error.resolution)


class _Session:
    """One connection. `settled` when it is up, or has failed; `error` is set when it is over.

    A cancellation around it does not end it, because jobs that are being cancelled need it: only
    `close` does.
    """

    def __init__(
        self, name: str, settings: HostSettings, directory: Path, before: _Session | None
    ) -> None:
        self.settled = trio.Event()
        self.was_up = False
        self.error: IncusError | None = None
        self.home: str = before.home if before else "~"
        self.uid: int = before.uid if before else 0
        self._name = name
        self._settings = settings
        self._directory = directory
        self._frame: Frame | None = None
        self._printed = b""
        self._sent = True
        self._answered = trio.Event()
        self._asking = trio.Lock()
        self._stdin: trio.abc.SendStream | None = None
        self._over = trio.Event()
        self._scope = trio.CancelScope(shield=True)

    def close(self) -> None:
        """End the connection now."""
        self._scope.cancel()

    async def run(self) -> None:
        """Connect, and hold the connection until it breaks; never raises."""
        try:
            with self._scope:
                self.error = await self._hold()
        finally:
            if self.error is None:
                self.error = self._broken("the connection was closed")
            with suppress(OSError):
                forwarded_socket(self._directory).unlink()
            self._over.set()
            self._answered.set()
            self.settled.set()

    async def ask(self, script: str, *, secs: float) -> Answer:
        async with self._asking:
            try:
                with trio.move_on_after(secs):
                    return await self._ask(script)
            finally:
                if not self._sent:
                    self.close()  # the next script would be taken for the rest of this one
        raise OutcomeUnknown(f"the host {self._name} did not answer within {secs:g} s")

    async def _hold(self) -> IncusError:
        refused: list[IncusError] = []

        async def feed(stream: trio.abc.SendStream) -> None:
            self._stdin = stream
            with trio.move_on_after(UP_SECS) as scope:
                try:
                    problem = await self._greet()
                except OutcomeUnknown:
                    return  # ssh says why
                if problem is not None:
                    refused.append(problem)
                    return
            if scope.cancelled_caught:
                refused.append(self._broken(f"no answer within {UP_SECS:g} s"))
                return
            self.was_up = True
            self.settled.set()
            await trio.sleep_forever()

        try:
            completed = await spawn_process(
                session_argv(self._settings, self._directory),
                env=environment(os.environ),
                stdin=b"",
                sink=self._take,
                feed=feed,
            )
        except FileNotFoundError:
            return HostRefused(
                f"the host {self._name} cannot be reached: the command ssh is not installed here",
                resolution="install the package openssh-client",
            )
        said = completed.stderr.decode("utf-8", "replace")
        printed = "" if self.home != "~" else self._printed.decode("utf-8", "replace")
        problem = lines_of(printed, 1) or f"ssh ended with exit code {completed.exit_code}"
        found = ssh_error(self._name, self._settings, said, problem)
        if isinstance(found, HostRefused) or not refused:
            return found
        return refused[0]

    async def _greet(self) -> IncusError | None:
        socket = self._settings.socket
        answer = await self._ask(_GREETING.format(socket=quoted(socket)))
        (self.home,) = answer.values("home") or ["~"]
        (uid,) = answer.values("uid") or ["0"]
        self.uid = int(uid)
        (found,) = answer.values("socket") or ["missing"]
        if found == "denied":
            return HostRefused(
                f"the user of {self._settings.ssh} may not use Incus on the host {self._name}",
                resolution="there: `sudo adduser USER incus-admin` (which is as good as root); then"
                " close all connections of ssh to it",
            )
        if found == "missing":
            return self._broken(f"it has no socket {socket}: no Incus runs there")
        if await self._is_forwarded():
            return None
        if found == "closed":
            return self._broken(f"nothing listens on its socket {socket}: Incus is down there")
        return forwarding_forbidden(self._name, self._settings)

    async def _is_forwarded(self) -> bool:
        """Whether somebody answers on the forwarded socket."""
        try:
            async with await trio.open_unix_socket(forwarded_socket(self._directory)) as stream:
                await stream.send_all(b"GET / HTTP/1.0\r\nHost: incus\r\n\r\n")
                return bool(await stream.receive_some(1))
        except (OSError, trio.BrokenResourceError):
            return False

    async def _ask(self, script: str) -> Answer:
        assert self._stdin is not None
        word = _word()
        frame = self._frame = Frame(word)
        self._answered = trio.Event()
        try:
            self._sent = False
            await self._stdin.send_all(framed(script, word))
            self._sent = True
            while frame.answer is None:
                if self._over.is_set():
                    raise OutcomeUnknown(f"the connection to the host {self._name} broke")
                await self._answered.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise OutcomeUnknown(f"the connection to the host {self._name} broke") from None
        finally:
            self._frame = None
        return frame.answer

    async def _take(self, chunk: bytes) -> None:
        if not self.was_up:
            # A shell that lets nobody in says so here.
            self._printed = (self._printed + chunk)[-MAX_PRINTED:]
        if self._frame is not None:
            self._frame.feed(chunk)
            if self._frame.answer is not None:
                self._answered.set()

    def _broken(self, problem: str) -> IncusError:
        return ssh_error(self._name, self._settings, "", problem)


def _word() -> str:
    return f"pikaci-{secrets.token_hex(8)}"
