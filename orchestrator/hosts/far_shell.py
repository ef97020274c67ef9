"""Shell scripts for another machine, and what they answer. Pure.

sshd hands a command to the user's login shell, which may be any, after start-up files that may
print. So the command is always the same short line, which every shell takes for the same words; it
starts `sh`, and that reads the script from its stdin. What a script prints is framed by lines with
a random word, and everything outside the frame is ignored.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

MAX_ANSWER_BYTES = 16 << 20
_GO = "#go"

# Reads scripts, each up to a line `#go`, and runs them in turn. `read` takes no byte too many, so a
# script may read what follows it. A script that is cut off before its `#go` is not run. No newline,
# `!` or `'` in it: csh and fish would take these in other ways.
SHELL = (
    'exec sh -c \'s=;n=$(printf "\\nx");n=${n%x};while IFS= read -r l;do case $l in'
    ' "#go")eval "$s";s=;;*)s=$s$l$n;;esac;done\''
)


def framed(script: str, word: str, *, reads: bool = False) -> bytes:
    """The script for `SHELL`'s stdin; its answer is in a frame of this word.

    It runs in a subshell, and ends at its first command that fails. Its stderr is in the answer. It
    gets no stdin, or, if it `reads`, all that follows. Then it is the shell's last one: what it
    leaves unread must never be taken for another script.
    """
    assert f"\n{_GO}\n" not in f"\n{script}\n"
    stdin, last = ("", "; exit") if reads else (" </dev/null", "")
    text = (
        f"echo; echo {word} begin; ( set -eu; LC_ALL=C; export LC_ALL\n{script}\n) 2>&1{stdin};"
        f" c=$?; echo; echo {word} end $c{last}\n{_GO}\n"
    )
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Answer:
    """What a script printed, and its exit code."""

    text: str
    exit_code: int

    def values(self, key: str) -> list[str]:
        """The rests of the lines that begin with this key and a space."""
        start = f"{key} "
        return [line[len(start) :] for line in self.text.splitlines() if line.startswith(start)]


class Frame:
    """Collects output until the frame of a word is complete: `answer` is then set."""

    def __init__(self, word: str) -> None:
        self.answer: Answer | None = None
        self.begun = False
        self._begin, self._end = f"\n{word} begin\n".encode(), f"\n{word} end ".encode()
        self._seen = b"\n"

    def feed(self, chunk: bytes) -> None:
        """Take output; what comes before the frame is dropped."""
        if self.answer is not None:
            return
        self._seen += chunk
        if not self.begun:
            _, mark, rest = self._seen.partition(self._begin)
            if not mark:
                self._seen = self._seen[-len(self._begin) :]
                return
            self.begun, self._seen = True, rest
        text, mark, rest = self._seen.partition(self._end)
        code, newline, _ = rest.partition(b"\n")
        if mark and newline:
            self.answer = Answer(text.decode("utf-8", "replace"), int(code))
        elif len(self._seen) > MAX_ANSWER_BYTES:
            self._seen = self._seen[-MAX_ANSWER_BYTES:]


def quoted(text: str) -> str:
    """The text as one word of a script."""
    return shlex.quote(text)


def lines_of(text: str, most: int = 5) -> str:
    """The last lines of an answer, for an error."""
    return "\n".join(text.strip().splitlines()[-most:])
