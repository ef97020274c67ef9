"""The man page, from the commands themselves."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from variables import VARIABLES

from orchestrator.cli.group import pikaci

ROOT = Path(__file__).resolve().parent.parent
EXIT_CODES = (
    ("0", "Done; for jobs: all passed."),
    ("1", "A command failed."),
    ("2", "Wrong usage, a mistake in the job file, or a rejected job. Nothing was touched."),
    ("3", "A command timed out."),
    ("4", "An infrastructure fault."),
    ("5", "The job file has no jobs."),
    ("130", "Interrupted or cancelled."),
)
FILES = (
    ("pikaci.toml", "The job file of a workspace."),
    ("~/.local/state/pikaci/", "A state root for each workspace."),
    ("~/.config/pikaci/hosts.toml", "Hosts that run guests, other than this machine."),
)


def man_page() -> str:
    """`pikaci.1`, in the macros of man(7)."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    context = click.Context(pikaci, info_name="pikaci", **pikaci.context_settings)
    lines = [
        f'.TH PIKACI 1 "" "pikaci {version}" "User Commands"',
        ".SH NAME",
        r"pikaci \- run CI jobs in throw\-away Incus instances",
        ".SH SYNOPSIS",
        r".B pikaci \fR[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_prose(pikaci.help or ""),
        ".SH OPTIONS",
        *_options(pikaci, context),
        ".SH COMMANDS",
    ]
    for command, inner in commands_below(pikaci, context):
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [f".SS {_text(f'{inner.command_path} {usage}')}", *_prose(command.help or "")]
        lines += _options(command, inner)
    lines += [".SH EXIT STATUS", *_terms(EXIT_CODES)]
    lines += [".SH ENVIRONMENT", *_terms(term for terms in VARIABLES.values() for term in terms)]
    lines += [".SH FILES", *_terms(FILES)]
    lines += [".SH SEE ALSO", ".BR incus (1)"]
    return "\n".join(lines) + "\n"


def commands_below(
    group: click.Group, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command of a group, and of the groups in it, in their order."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield command, inner
        if isinstance(command, click.Group):
            yield from commands_below(command, inner)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    records = [option.get_help_record(context) for option in options]
    yield from _terms([record for record in records if record is not None])


def _terms(terms: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in terms:
        yield from (".TP", f".B {_text(term)}", _text(text))


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; those behind a \\b keep their lines, as in `--help`."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        first, *rest = paragraph.splitlines()
        if first.strip() == "\b":
            yield from (".PP", ".nf", *(_text(line.strip()) for line in rest), ".fi")
        else:
            yield from (".PP", *(_text(line.strip()) for line in (first, *rest)))


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
