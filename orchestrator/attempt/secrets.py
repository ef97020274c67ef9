"""Reads secrets on this host, from the sources in the spec.

A value is read right before use and stored nowhere: no plan, event, error or log line of pikaci
contains it. After a restart it is read again.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Mapping

from orchestrator.units import size
from states.environment import MAX_BYTES as MAX_TOTAL_BYTES
from states.environment import total_size
from states.errors import PikaciError
from states.spec import SecretSource

MAX_BYTES = 64 * 1024  # in one value; the kernel passes at most 131,071 bytes in one variable


class SecretMissing(PikaciError):
    """A secret has no usable value. The message names key and source, never a value."""


def read_secrets(sources: Mapping[str, SecretSource], env: Mapping[str, str]) -> dict[str, str]:
    """The value of each secret, to be passed beside `env`. `sources` must be checked.

    The value of a file is its `content_of`. Raises `SecretMissing`.
    """
    values = {name: _value(name, source) for name, source in sources.items()}
    if (total := total_size({**env, **values})) > MAX_TOTAL_BYTES:
        raise SecretMissing(
            f"secrets: with `env` they have {total} bytes, which is too much for a command",
            resolution=f"at most {MAX_TOTAL_BYTES} bytes, with their names",
        )
    return values


def content_of(data: bytes) -> bytes:
    """A secret's file without a byte order mark, and without one line break (LF, CRLF) at its end.

    Editors add these; nobody means them to be part of the secret.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    return data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data


def described(source: SecretSource) -> str:
    """Where a value comes from, for people."""
    return f"the variable {source.env}" if source.env is not None else f"the file {source.file}"


def _value(name: str, source: SecretSource) -> str:
    def missing(problem: str, resolution: str) -> SecretMissing:
        return SecretMissing(
            f"secrets.{name}: {described(source)} {problem}", resolution=resolution
        )

    if source.env is not None:
        if source.env not in os.environ:
            raise missing("is not set", f"export {source.env} where pikaci is started")
        data = os.environb[source.env.encode()]
    else:
        assert source.file is not None
        try:
            data = _content(source.file)
        except OSError as error:
            raise missing(
                f"cannot be read: {error.strerror}",
                "make it readable for the user that runs pikaci",
            ) from None
        except ValueError as error:
            raise missing(str(error), "put the value into a regular file") from None
    if len(data) > MAX_BYTES:
        raise missing(f"has more than {size(MAX_BYTES)}", "use a shorter value")
    if b"\0" in data:
        raise missing(
            "has a NUL byte", "a variable cannot hold one: encode it, for example in base64"
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Drop the cause: its message and its frames contain the bytes.
        raise missing("is not UTF-8", "encode it, for example in base64") from None


def _content(path: str) -> bytes:
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        # One byte more than a value may have, with what is not part of it.
        return content_of(file.read(MAX_BYTES + 1 + len(codecs.BOM_UTF8 + b"\r\n")))


def _open(path: str, flags: int) -> int:
    # Non-blocking: opening a fifo would wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
