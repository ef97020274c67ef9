"""The small subset of a shell that the fake guest understands.

Commands are separated by `;`, `&&` or line breaks; the first that fails ends the script.
They are `true`, `false`, `exit N`, `echo TEXT`, `sleep SECS` and `cat FILE`; `> FILE` sends
the output of a command to a file of the guest.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import trio

from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome

_NOT_FOUND = 127


async def run_handful(command: GuestCommand) -> GuestOutcome:
    """The default guest script: the few commands of `interpret`."""
    code = await interpret(command.text, command.print, command.read, command.write)
    return GuestOutcome(code)


async def interpret(
    text: str,
    print_: Callable[[bytes], None],
    read: Callable[[str], bytes],
    write: Callable[[str, bytes], None],
) -> int:
    """Run a script; returns its exit code. An unknown command is "command not found", code 127."""
    for words in _commands(text):
        into = ""
        if len(words) > 2 and words[-2] == ">":
            into, words = words[-1], words[:-2]
        if words[0] == "exit":
            return int(words[1]) & 0xFF if len(words) > 1 else 0
        try:
            output, code = await _one(words, read)
            if into:
                write(into, output)
            else:
                print_(output)
        except OSError as error:
            print_(f"{words[0]}: {error.filename}: {error.strerror}\n".encode())
            code = 1
        if code:
            return code
    return 0


async def _one(words: list[str], read: Callable[[str], bytes]) -> tuple[bytes, int]:
    match words:
        case ["true"]:
            return b"", 0
        case ["false"]:
            return b"", 1
        case ["echo", *rest]:
            return " ".join(rest).encode("utf-8", "surrogateescape") + b"\n", 0
        case ["sleep", secs]:
            await trio.sleep(float(secs))
            return b"", 0
        case ["cat", path]:
            return read(path), 0
        case _:
            return f"bash: line 1: {words[0]}: command not found\n".encode(), _NOT_FOUND


def _commands(text: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&>\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for word in lexer:
        if word.strip(";&\n") == "":
            if words:
                yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words
