"""The file with the tokens of TCP clients, which is read anew when it changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio

from orchestrator.attempt.secrets import content_of
from orchestrator.errors import UsageError

MIN_TOKEN = 16
# While a token is replaced, the old one and the new one are both valid.
MAX_TOKENS = 2
LOOK_SECS = 2.0
_MAX_BYTES = 4096
_log = logging.getLogger(__name__)


def read_tokens(path: Path) -> tuple[str, ...]:
    """Read one or two tokens, a line each, from a file that only its owner can read.

    `UsageError` if others can, or if it has none. The mode of a systemd credential looks as if a
    group could read the file. It shows the mask of the access list that lets the unit's user read
    it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = content_of(file.read(_MAX_BYTES)).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--token-file {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            resolution="name a file with the token",
        ) from None
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    others = 0o037 if credentials and path.parent == Path(credentials) else 0o077
    if mode & others:
        raise UsageError(
            f"--token-file {path} can be read by others", resolution=f"chmod 600 {path}"
        )
    tokens = tuple(stripped for line in lines if (stripped := line.strip()))
    if not tokens or not all(map(_is_token, tokens)):
        raise UsageError(
            f"--token-file {path} has no token of at least {MIN_TOKEN} printable characters",
            resolution=f"for example: openssl rand -hex 32 > {path}",
        )
    if len(tokens) > MAX_TOKENS:
        raise UsageError(
            f"--token-file {path} has {len(tokens)} tokens",
            resolution=f"at most {MAX_TOKENS}, a line each: the old one and the new one",
        )
    return tokens


def _read_again(path: Path) -> tuple[str, ...]:
    # Reading a pipe that the file was replaced by would wait for a writer.
    if path.exists() and not path.is_file():
        raise UsageError(f"--token-file {path} is no longer a regular file")
    return read_tokens(path)


def _is_token(text: str) -> bool:
    return len(text) >= MIN_TOKEN and text.isascii() and text.isprintable() and " " not in text


async def follow_tokens(
    path: Path, tokens: tuple[str, ...], accept: Callable[[tuple[str, ...]], None]
) -> None:
    """Look every `LOOK_SECS`, and `accept` the tokens of the file when they differ from the last.

    While the file cannot be used, the last ones stay valid, and the log says so once.
    """
    problem = ""
    while True:
        await trio.sleep(LOOK_SECS)
        try:
            # Its file system may not answer: that must not hold up the service's end.
            found = await trio.to_thread.run_sync(_read_again, path, abandon_on_cancel=True)
        except UsageError as error:
            if error.brief != problem:
                _log.warning("%s; the tokens stay as they were", error.brief)
            problem = error.brief
            continue
        problem = ""
        if found != tokens:
            tokens = found
            accept(tokens)
            _log.info("read %s anew: tokens accepted: %d", path, len(tokens))
