"""Where the service listens: a private unix socket, and TCP behind a token."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import UsageError

BACKLOG = 128
GONE_SECS = 60
MIN_TOKEN = 16


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket that the user alone can open; it is gone after the block.

    Its path may be of any length. A socket on which nobody listens any more is replaced; anything
    else that is there is a `UsageError`.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with made, _directory(path) as directory:
        address = f"/proc/self/fd/{directory}/{path.name}"
        # Of the socket itself: nobody connects before it listens.
        os.fchmod(made.fileno(), 0o600)
        try:
            _remove_dead_socket(address, path)
            made.bind(address)
            ours = os.lstat(address)
        except OSError as error:
            raise _no_socket(path, error) from None
        try:
            made.listen(BACKLOG)
            yield made
        finally:
            with suppress(OSError):
                if os.path.samestat(os.lstat(address), ours):
                    os.unlink(address)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise _no_socket(path, error) from None
    try:
        yield directory
    finally:
        os.close(directory)


def _no_socket(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path} cannot be a socket: {error.strerror or error}",
        resolution="name another with --socket",
    )


def _remove_dead_socket(address: str, path: Path) -> None:
    """Remove a dead service's socket."""
    if not os.path.lexists(address):
        return
    if not stat.S_ISSOCK(os.lstat(address).st_mode):
        raise UsageError(
            f"{path} is there, and is no socket", resolution="name another with --socket"
        )
    # Another state root's service may have been given the same path.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(address)
            return
        except BlockingIOError:
            pass  # it listens, and is busy
    raise UsageError(f"another service listens on {path}", resolution="name another with --socket")


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
        # A client whose host or network went away says nothing more. Connections inherit these.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, GONE_SECS // 2)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, GONE_SECS // 6)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_SECS * 1000)
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
