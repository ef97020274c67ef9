"""Makes a host over TLS trust us, by a token that was made there.

The token names the host's addresses and the fingerprint of its certificate, and holds a secret that
can be used once. So it goes to the incus command on stdin: its arguments are in the process list.
The command asks whether the fingerprint is right, and for the token; no terminal is needed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from orchestrator.incus import Deadline, Effect, Incus, to_sink
from orchestrator.incus.errors import CertificateChanged, DaemonUnreachable
from orchestrator.state_root import user_state_dir
from states.errors import PikaciError

ADD_SECS = 60.0
MAX_TOKEN_BYTES = 64 << 10
MADE_BY = "`incus config trust add NAME --restricted --projects PROJECT` there makes one"

_SHOWN = re.compile(rb"Certificate fingerprint: ([0-9a-f]{64})\n")
_FINGERPRINT_ASKED, _TOKEN_ASKED = b"[fingerprint])?", b"Trust token for "


class Token(msgspec.Struct, frozen=True):
    """What a token says; `text` is the token itself, a secret."""

    client_name: str
    fingerprint: str
    addresses: tuple[str, ...]
    secret: str
    expires_at: datetime
    text: str = ""

    def __repr__(self) -> str:
        return f"Token({self.client_name!r}, {self.fingerprint!r}, {self.addresses!r})"


def remotes_conf() -> Path:
    """The incus command's configuration with our remotes, our key, and the hosts' certificates.

    It belongs to the user, and is the same for every state root.
    """
    return user_state_dir() / "incus"


def read_token(text: str) -> Token:
    """The token in what `incus config trust add` prints. Raises `PikaciError`."""
    lines = text.split()
    last = lines[-1] if lines else ""
    try:
        token = msgspec.json.decode(base64.b64decode(last, validate=True), type=Token)
    except (ValueError, UnicodeError):  # msgspec's errors are ValueErrors
        raise PikaciError("this is not a token", resolution=MADE_BY) from None
    if not re.fullmatch("[0-9a-f]{64}", token.fingerprint):
        raise PikaciError("the token has no fingerprint", resolution=MADE_BY)
    # Incus writes the year 1 for a token that does not expire.
    if token.expires_at.year > 1 and token.expires_at < datetime.now(UTC):
        raise PikaciError(f"the token expired at {token.expires_at}", resolution=MADE_BY)
    return msgspec.structs.replace(token, text=last)


async def add_remote(
    incus: Incus, token: Token, *, address: str = "", say: Callable[[str], None]
) -> None:
    """Add the remote that `incus` names to its configuration, and make its host trust us.

    `address` is `HOST:PORT`, "" for the token's own, which are tried in turn. `say` is told the
    fingerprint of the host's certificate, which was found to be the token's. Raises
    `CertificateChanged` if it is another, `TokenRefused`, `DaemonUnreachable`, or another
    `IncusError`. A cancellation, too, leaves no remote that does not work; the host may trust us
    already.
    """
    addresses = (address,) if address else token.addresses
    away: list[str] = []
    for one in addresses:
        dialogue = _Dialogue(token, one)
        try:
            await incus.perform(_add(incus, one), into=to_sink(dialogue.read), feed=dialogue.answer)
            break
        except DaemonUnreachable as error:
            away.append(f"{one}: {error.brief}")
    else:
        raise DaemonUnreachable(
            f"no address of the host answers: {', '.join(addresses) or 'the token has none'}",
            details="\n".join(away),
            resolution="there, `incus config get core.https_address` says where it listens;"
            " --address names another address",
        )
    try:
        # The command asks nothing about a certificate that it knows already.
        server = await incus.query("/1.0", _Server, deadline=Deadline(ADD_SECS), in_project=False)
        _compare(server.environment.certificate_fingerprint, token, one)
    except BaseException:
        with trio.CancelScope(shield=True):
            await remove_remote(incus)
        raise
    say(f"its certificate is the token's: {token.fingerprint}")


class _Environment(msgspec.Struct):
    certificate_fingerprint: str = ""


class _Server(msgspec.Struct):
    environment: _Environment


def _compare(fingerprint: str, token: Token, address: str) -> None:
    if fingerprint != token.fingerprint:
        raise CertificateChanged(
            f"the certificate at {address} has another fingerprint than the token's host",
            details=f"there: {fingerprint}\ntoken: {token.fingerprint}",
            resolution="somebody intercepts the connection, or the token is of another host",
        )


def _add(incus: Incus, address: str) -> Effect:
    project = ("--project", incus.project)
    return Effect(
        name="add remote",
        args=("remote", "add", incus.remote, f"https://{address}", "--auth-type", "tls", *project),
        deadline=Deadline(ADD_SECS),
        in_project=False,
    )


class _Dialogue:
    """Answers what the command asks. Nothing else is ever written to it."""

    def __init__(self, token: Token, address: str) -> None:
        self._token = token
        self._address = address
        self._text = b""
        self._answers, self._to_write = trio.open_memory_channel[str](2)

    async def read(self, chunk: bytes) -> None:
        """Look at what the command printed."""
        self._text += chunk
        if shown := _SHOWN.search(self._text):
            _compare(shown[1].decode(), self._token, self._address)
        for question, answer in (
            (_FINGERPRINT_ASKED, self._token.fingerprint),
            (_TOKEN_ASKED, self._token.text),
        ):
            if question in self._text:
                self._text = self._text.partition(question)[2]
                self._answers.send_nowait(answer)

    async def answer(self, stdin: trio.abc.SendStream) -> None:
        """Write the answers, for as long as the command runs."""
        async for answer in self._to_write:
            await stdin.send_all(f"{answer}\n".encode())


async def remove_remote(incus: Incus) -> None:
    """Remove the remote from our configuration; the host goes on trusting our certificate."""
    await incus.perform(
        Effect(
            name="remove remote",
            args=("remote", "remove", incus.remote),
            deadline=Deadline(ADD_SECS),
            in_project=False,
        )
    )
