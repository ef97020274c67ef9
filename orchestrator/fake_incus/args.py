"""The client's command line: which words name a command, and which flags take a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.fake_incus import words
from orchestrator.fake_incus.words import NotFaked, Refused

# Which flags take a value: True if they do.
_ANYWHERE = {"project": True, "quiet": False, "q": False}
_GROUPS = ("image", "image alias", "project", "profile", "storage", "file", "config")

FLAGS: dict[str, dict[str, bool]] = {
    "create": {
        "vm": False,
        "no-profiles": False,
        "config": True,
        "c": True,
        "profile": True,
        "p": True,
    },
    "start": {},
    "stop": {"force": False, "f": False, "timeout": True},
    "delete": {"force": False, "f": False},
    "exec": {
        "force-noninteractive": False,
        "T": False,
        "n": False,
        "disable-stdin": False,
        "env": True,
        "user": True,
        "group": True,
        "cwd": True,
        "mode": True,
    },
    "monitor": {"type": True, "format": True},
    "list": {"columns": True, "c": True, "format": True, "f": True, "all-projects": False},
    "info": {},
    "query": {"request": True, "X": True, "data": True, "d": True, "wait": False, "raw": False},
    "file pull": {},
    "publish": {"compression": True, "alias": True, "force": False},
    "image list": {"format": True, "f": True, "columns": True, "c": True},
    "image import": {"alias": True, "reuse": False, "public": False},
    "image delete": {},
    "image alias list": {"format": True, "f": True},
    "image alias create": {"description": True},
    "image alias delete": {},
    "project create": {"config": True, "c": True},
    "project delete": {},
    "profile create": {},
    "profile delete": {},
    "storage create": {},
    "storage delete": {},
}
FLAGS["launch"] = FLAGS["create"]
_LONG = {
    "q": "quiet",
    "p": "profile",
    "f": "force",
    "X": "request",
    "d": "data",
    "T": "force-noninteractive",
    "n": "disable-stdin",
}


@dataclass(frozen=True)
class Command:
    """A parsed command line. `flags` holds each value given, by the flag's long name."""

    verb: str
    args: tuple[str, ...]
    flags: dict[str, list[str]] = field(default_factory=dict)
    rest: tuple[str, ...] = ()  # the words after `--`

    @property
    def project(self) -> str:
        return self.flag("project", "default")

    def flag(self, name: str, default: str = "") -> str:
        """The last value given for a flag; "true" for one that takes none."""
        return self.flags.get(name, [default])[-1]


def parse(argv: Sequence[str]) -> Command:
    """Parse a command line, without the program's name; `NotFaked` names what is not supported."""
    verb, remaining = _verb(argv)
    if verb not in FLAGS:
        raise NotFaked(f"incus {' '.join(argv)}")
    known = _ANYWHERE | FLAGS[verb]
    args: list[str] = []
    flags: dict[str, list[str]] = {}
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return Command(verb, tuple(args), flags, tuple(remaining))
        if not word.startswith("-") or word == "-":
            args.append(word)
            continue
        name, given, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):  # -fcsv is -f csv
            name, given, value = word[1], word[2:], word[2:].removeprefix("=")
        if name not in known:
            raise NotFaked(f"incus {verb} {word}")
        if not known[name]:
            value = value or "true"
        elif not given:
            if not remaining:
                raise Refused(f"flag needs an argument: {word}")
            value = remaining.pop(0)
        flags.setdefault(_long_name(verb, name), []).append(value)
    if verb == "query" and "project" in flags:
        raise Refused(words.QUERY_WITH_PROJECT)
    if "project" in flags and "all-projects" in flags:
        raise Refused(words.PROJECT_WITH_ALL)
    return Command(verb, tuple(args), flags)


def _verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The command's words, even with flags between them, and all other words."""
    verb = ""
    rest = list(argv)
    at = 0
    while at < len(rest) and (not verb or verb in _GROUPS):
        word = rest[at]
        if word.startswith("-"):
            at += 2 if _ANYWHERE.get(word.lstrip("-")) else 1
            continue
        if verb and f"{verb} {word}" not in FLAGS and f"{verb} {word}" not in _GROUPS:
            break
        verb = f"{verb} {word}".strip()
        del rest[at]
    return verb, rest


def _long_name(verb: str, name: str) -> str:
    if name == "f" and "format" in FLAGS[verb]:
        return "format"
    if name == "c":
        return "columns" if "columns" in FLAGS[verb] else "config"
    return _LONG.get(name, name)
