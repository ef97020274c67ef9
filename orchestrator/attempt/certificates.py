"""The authorities that this host trusts, as a directory for guests. Blocks: call it in a thread."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
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


def publish(directory: Path, environment: Mapping[str, str], sources: Sequence[str] = ()) -> str:
    """Write this host's authorities into the directory; returns its path, "" if there are none.

    `sources` are apt's lines for jobs with `host_mirrors`. A file that exists is replaced in one
    step, as running guests may read it. Raises `OSError`.
    """
    bundle = _bundle(environment)
    if not bundle:
        return ""
    ours = contract().certificates
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    _replace(directory / ours.bundle, bundle)
    settings = f'Acquire::https::CaInfo "{ours.path}/{ours.bundle}";\n'
    _replace(directory / ours.apt, settings.encode())
    if sources:
        _replace(directory / ours.sources, "".join(f"{line}\n" for line in sources).encode())
        settings += f'Dir::Etc::SourceList "{ours.path}/{ours.sources}";\n'
        settings += 'Dir::Etc::SourceParts "/dev/null";\n'
    _replace(directory / ours.apt_mirrors, settings.encode())
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
