"""The authorities that this host trusts, as a directory for guests. Blocks: call it in a thread."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator.contract import contract

MAX_BYTES = 16 << 20
# Debian, Fedora, openSUSE, Alpine and NixOS have one of these.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# Nothing else of the file: some people keep keys beside their certificates.
_CERTIFICATE = re.compile(
    rb"-----BEGIN ((?:TRUSTED )?CERTIFICATE)-----[A-Za-z0-9+/=\s]+-----END \1-----"
)


def publish(directory: Path, environment: Mapping[str, str]) -> str:
    """Write this host's authorities into the directory; returns its path, "" if there are none.

    A file that exists is replaced in one step, as running guests may read it. Raises `OSError`.
    """
    bundle = _bundle(environment)
    if not bundle:
        return ""
    ours = contract().certificates
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    _replace(directory / ours.bundle, bundle)
    _replace(
        directory / ours.apt,
        f'Acquire::https::CaInfo "{ours.path}/{ours.bundle}";\n'.encode(),
    )
    return str(directory)


def _bundle(environment: Mapping[str, str]) -> bytes:
    for path in (environment.get("SSL_CERT_FILE") or "", *_BUNDLES):
        try:
            with open(path, "rb") as file:
                found = [match[0] for match in _CERTIFICATE.finditer(file.read(MAX_BYTES))]
        except (OSError, ValueError):
            continue
        if found:
            return b"\n".join(found) + b"\n"
    return b""


def _replace(path: Path, content: bytes) -> None:
    try:
        if path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
