"""Reads secrets from where a spec says that they are, on this host, at this moment.

A value is read right before it is used, and kept nowhere: no plan, event, error or line of ours
has it. After a restart it is read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from orchestrator.units import size
from states.errors import PikaciError
from states.spec import SecretSource

MAX_BYTES = 64 * 1024  # in one value; the kernel passes at most 131,071 bytes in one variable


class SecretMissing(PikaciError):
    """A secret has no value that can be passed on. It names key and source, never a value."""


def read_secrets(sources: Mapping[str, SecretSource]) -> dict[str, str]:
    """The value of each secret. `sources` have passed `states.check`.

    A file's content is the value, without one line break at its end. Raises `SecretMissing`.
    """
    return {name: _value(name, source) for name, source in sources.items()}


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
                f"cannot be read: {error.strerror}", "make it readable for who starts pikaci"
            ) from None
        except ValueError as error:
            raise missing(str(error), "put the value into a regular file") from None
    if len(data) > MAX_BYTES:
        raise missing(f"has more than {size(MAX_BYTES)}", "a secret is a short text")
    if b"\0" in data:
        raise missing("has a NUL byte", "no variable can hold one: encode it, in base64 perhaps")
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Without the cause: its text and its frames have the bytes.
        raise missing("is not UTF-8", "encode it, in base64 perhaps") from None


def _content(path: str) -> bytes:
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        return file.read(MAX_BYTES + 2).removesuffix(b"\n")


def _open(path: str, flags: int) -> int:
    # Not blocking: opening a fifo would wait for somebody to write.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
