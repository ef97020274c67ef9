"""Opens the service's sockets: a private unix socket, and TCP."""

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


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket that only this user can open; it is removed after the block.

    The path may have any length. A socket that a dead service left is replaced; `UsageError` if
    anything else exists there.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with made, _directory(path) as directory:
        address = f"/proc/self/fd/{directory}/{path.name}"
        # Set on the socket itself, so that it is private before it has a name.
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
        resolution="name another path with --socket",
    )


def _remove_dead_socket(address: str, path: Path) -> None:
    """Remove a dead service's socket."""
    if not os.path.lexists(address):
        return
    if not stat.S_ISSOCK(os.lstat(address).st_mode):
        raise UsageError(
            f"{path} exists and is not a socket", resolution="name another path with --socket"
        )
    # The service of another state root may use the same path.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(address)
            return
        except BlockingIOError:
            pass  # a service listens, and is busy
    raise UsageError(
        f"another service listens on {path}", resolution="name another path with --socket"
    )


@contextmanager
def tcp_socket(listen: str) -> Iterator[socket.socket]:
    """Listen on ADDRESS:PORT, with an IPv6 address in brackets. `UsageError` if impossible."""
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise UsageError(
            f"--listen {listen} is not a valid ADDRESS:PORT",
            resolution="write, for example, --listen 127.0.0.1:8443 or --listen [::1]:8443",
        ) from None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Detects clients whose host or network is gone. Connections inherit these options.
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
                resolution="name an address of this host and a free port",
            ) from None
        yield made
