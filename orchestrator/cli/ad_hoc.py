"""The job of `pikaci run -- COMMAND`: the command, and what the flags before it say."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from states.spec import JobSpec, SecretSource

F = TypeVar("F", bound=Callable[..., Any])

AD_HOC_NAME = "command"
_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_TIME = re.compile("".join(rf"(?:([0-9]{{1,7}}){unit})?" for unit in _UNITS))


def time(text: str) -> int:
    """Seconds: `90`, or `90s`, `10m`, `1h30m`."""
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    found = _TIME.fullmatch(text)
    if not text or found is None:
        raise click.BadParameter(f"{text!r} is not a valid time: write 90s, 10m, 2h or 1h30m")
    return sum(int(n or 0) * secs for n, secs in zip(found.groups(), _UNITS.values(), strict=True))


# By the key of the job that each one sets.
_OPTIONS = {
    "image": click.option("--image", metavar="NAME", help="For COMMAND: the image of its guest."),
    "timeout_secs": click.option(
        "--timeout",
        "timeout_secs",
        type=time,
        metavar="TIME",
        help="For COMMAND: its time limit, such as 90s, 10m or 2h. Default: 1h.",
    ),
    "memory": click.option(
        "--memory", metavar="SIZE", help="For COMMAND: the memory of its guest, such as 8GiB."
    ),
    "cpus": click.option(
        "--cpus", type=int, metavar="N", help="For COMMAND: the processors of its guest."
    ),
    "env": click.option(
        "--env",
        multiple=True,
        metavar="NAME=VALUE",
        help="For COMMAND: a variable. NAME alone takes its value from here. Repeatable.",
    ),
    "secrets": click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME[=SOURCE]",
        help="For COMMAND: a variable whose value is not recorded. SOURCE is env:VARIABLE or"
        " file:PATH. Default: env:NAME. Repeatable.",
    ),
    "egress": click.option(
        "--egress",
        multiple=True,
        metavar="HOST",
        help="For COMMAND: a host that it may reach, or '*' for every host. Repeatable.",
    ),
    "artifacts": click.option(
        "--artifact",
        "artifacts",
        multiple=True,
        metavar="GLOB",
        help="For COMMAND: files below /artifacts to collect. Repeatable.",
    ),
    "junit": click.option(
        "--junit",
        multiple=True,
        metavar="GLOB",
        help="For COMMAND: test reports (JUnit XML) below /artifacts to read. Repeatable.",
    ),
    "scratch": click.option(
        "--scratch", is_flag=True, help="For COMMAND: a throw-away writable copy of the workspace."
    ),
    "run_as_root": click.option(
        "--root", "run_as_root", is_flag=True, help="For COMMAND: run as root in the guest."
    ),
}
_NAMES = {"timeout_secs": "timeout", "secrets": "secret", "artifacts": "artifact",
          "run_as_root": "root"}  # fmt: skip


def ad_hoc_options(command: F) -> F:
    """The options that describe a command which is no job of the job file."""
    return reduce(lambda inner, option: option(inner), reversed(_OPTIONS.values()), command)


def refuse_flags(flags: Mapping[str, Any]) -> None:
    """Raise `UsageError` for flags that have no command after `--`."""
    given = [_flag(key) for key, value in flags.items() if _is_given(value)]
    if given:
        raise UsageError(
            f"{', '.join(given)}: only for a command after `--`",
            resolution="set this in the job file, or give a command:"
            f" pikaci run {given[0]} ... -- make test",
        )


def ad_hoc_job(words: list[str], flags: Mapping[str, Any], below: str) -> Mapping[str, JobSpec]:
    """The command as a job, which begins in the directory `below` the workspace.

    Raises `UsageError` if there is no command, or for a flag with a value that is not allowed.
    """
    from states.errors import SpecError, SpecErrors
    from states.rules import CheckedSpec
    from states.spec import JobSpec

    keys = {key: value for key, value in flags.items() if _is_given(value)}
    if "env" in keys:
        keys["env"] = dict(map(_variable, keys["env"]))
    if "secrets" in keys:
        keys["secrets"] = dict(map(_secret, keys["secrets"]))
    spec = JobSpec(command=_line(words, below), **keys)
    try:
        CheckedSpec(spec)
    except SpecError as error:
        every = error.mistakes if isinstance(error, SpecErrors) else (error,)
        wrong = [(_told(each), each.resolution) for each in every if _key(each) in _OPTIONS]
        if len(wrong) == 1:
            raise UsageError(wrong[0][0], resolution=f"allowed: {wrong[0][1]}") from None
        if wrong:
            lines = "\n".join(f"{told}; allowed: {allowed}" for told, allowed in wrong)
            raise UsageError(f"{len(wrong)} flags are wrong", details=lines) from None
    return {AD_HOC_NAME: spec}


def _line(words: list[str], below: str) -> str:
    if not any(word.strip() for word in words):
        raise UsageError(
            "there is no command after `--`", resolution="for example: pikaci run -- make test"
        )
    line = words[0] if len(words) == 1 else shlex.join(words)
    if not _is_text(line):
        raise UsageError(
            "the command after `--` is not UTF-8", resolution="put such bytes into a script"
        )
    if below in ("", "."):
        return line
    if not _is_text(below):
        raise UsageError("the path of this directory is not UTF-8", resolution="rename it")
    return f"cd -- {shlex.quote(below)}\n{line}"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if equals:
        return name, value
    if name not in os.environ:
        raise UsageError(
            f"--env {name}: there is no such variable here",
            resolution=f"write --env {name}=VALUE, or export {name}",
        )
    return name, os.environ[name]


def _secret(text: str) -> tuple[str, SecretSource]:
    from states.spec import SecretSource

    name, equals, source = text.partition("=")
    kind, colon, where = source.partition(":")
    if not equals:
        return name, SecretSource(env=name)
    if colon and where and kind == "env":
        return name, SecretSource(env=where)
    if colon and where and kind == "file":
        return name, SecretSource(file=str(Path.cwd() / where))
    # Somebody may have written the secret itself, so it is not shown.
    raise UsageError(
        f"--secret {name}: what follows `=` is not a source",
        resolution=f"write --secret {name} for the variable {name} of this shell, or"
        f" --secret {name}=env:VARIABLE, or --secret {name}=file:PATH; never the value:"
        " other users of this machine can read command lines",
    )


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != ()


def _flag(key: str) -> str:
    return f"--{_NAMES.get(key, key)}"


def _key(error: Any) -> str:
    return re.split(r"[.\[]", error.key, maxsplit=1)[0]


def _told(error: Any) -> str:
    """A mistake of the spec in the words of the command line: `--env A has a NUL byte`."""
    name = error.key.partition(".")[2]
    return " ".join(filter(None, (_flag(_key(error)), name, error.brief)))
