"""Where the service listens: a private unix socket, and TCP behind a token."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.types import ASGIApp

from orchestrator.errors import UsageError

BACKLOG = 128
READ_SECS = 30
STOP_SECS = 3.0
MIN_TOKEN = 16


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket that the user alone can open; it is gone after the block.

    Its path may be of any length. A socket that is there already is of a dead service, as the
    living one has the state root; anything else there is a `UsageError`.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    address = f"/proc/self/fd/{directory}/{path.name}"
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(address):
            if not stat.S_ISSOCK(os.lstat(address).st_mode):
                raise UsageError(
                    f"{path} is there, and is no socket", resolution="name another with --socket"
                )
            os.unlink(address)
        # Of the socket itself: nobody connects before it listens.
        os.fchmod(made.fileno(), 0o600)
        try:
            made.bind(address)
            os.chmod(address, 0o600)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be a socket: {error.strerror}",
                resolution="name another with --socket",
            ) from None
        made.listen(BACKLOG)
        yield made
    finally:
        made.close()
        if os.path.lexists(address) and stat.S_ISSOCK(os.lstat(address).st_mode):
            os.unlink(address)
        os.close(directory)


@contextmanager
def tcp_socket(listen: str) -> Iterator[socket.socket]:
    """Listen on ADDRESS:PORT; an IPv6 address in brackets. `UsageError` when that cannot be."""
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise UsageError(
            f"--listen {listen} is no address with a port",
            resolution="for example --listen 127.0.0.1:8443 or --listen [::1]:8443",
        ) from None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((str(address), number))
            made.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"--listen {listen}: {getattr(error, 'strerror', None) or error}",
                resolution="name a free port of this host",
            ) from None
        yield made


def read_token(path: Path) -> str:
    """The token in a file that is its owner's alone. `UsageError` when it is not.

    A credential of systemd's is, though it looks as if a group could read it: its user may read it
    by an access list, of which the mode shows the mask.
    """
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--token-file {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            resolution="name a file that holds the token",
        ) from None
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    others = 0o037 if credentials and path.parent == Path(credentials) else 0o077
    if mode & others:
        raise UsageError(
            f"--token-file {path} can be read by others", resolution=f"chmod 600 {path}"
        )
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"--token-file {path} has no token of {MIN_TOKEN} printable characters or more",
            resolution=f"for example: openssl rand -hex 32 > {path}",
        )
    return token


async def serve_on(app: ASGIApp, listener: socket.socket, stopping: trio.Event) -> None:
    """Answer until it is `stopping`; then finish what is being answered, in bounded time."""
    config = Config()
    # Hypercorn closes what it is given.
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.read_timeout = READ_SECS
    config.graceful_timeout = STOP_SECS
    config.loglevel = "WARNING"
    config.include_server_header = False
    await serve(app, config, shutdown_trigger=stopping.wait)  # type: ignore[arg-type]
