"""The proxy through which this host itself goes out, as its environment names it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from states.egress import address_of, authority
from states.errors import PikaciError


@dataclass(frozen=True)
class HostProxy:
    """An HTTP proxy; `authorization` is the value of a header for it, "" for none."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return authority(self.host, self.port)


class HostProxies:
    """What `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say, in either case.

    Raises `PikaciError` for a proxy of another kind.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        def value(name: str) -> str:
            return environment.get(name) or environment.get(name.upper()) or ""

        every = value("all_proxy")
        self._plain = _proxy("http_proxy", value("http_proxy") or every)
        self._tunnel = _proxy("https_proxy", value("https_proxy") or every)
        self._direct = [
            entry.strip().lower().removeprefix("*").removeprefix(".")
            for entry in value("no_proxy").split(",")
            if entry.strip()
        ]
        self._none = value("no_proxy").strip() == "*"

    def of(self, host: str, *, tunnel: bool) -> HostProxy | None:
        """The proxy for a connection to this host; None to go there directly."""
        proxy = self._tunnel if tunnel else self._plain
        if proxy is None or self._none:
            return None
        whole = address_of(host) is not None
        for entry in self._direct:
            name = entry.partition(":")[0] if entry.count(":") == 1 else entry
            if host == name or (not whole and name and host.endswith(f".{name}")):
                return None
        return proxy


def _proxy(name: str, url: str) -> HostProxy | None:
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "http" or not parts.hostname:
        # The value may hold a password.
        raise PikaciError(
            f"the host's {name} is not the address of an HTTP proxy, so no job with egress"
            " can go out through it",
            resolution="http://HOST:PORT, in the environment of pikaci",
        )
    secret = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        secret = "Basic " + base64.b64encode(pair.encode()).decode()
    return HostProxy(parts.hostname, port or 80, secret)
