"""The page of all commands, from the commands themselves."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator

import click
from manpage import EXIT_CODES, commands_below

from orchestrator.cli.group import COMMANDS, pikaci

# An option of more commands than this, in the same words, is explained once.
FEW = 4
Record = tuple[str, str]


def commands_page() -> str:
    """`commands.md`: each command with its usage, its help and its options."""
    context = click.Context(pikaci, info_name="pikaci", **pikaci.context_settings)
    commands = list(commands_below(pikaci, context))
    counts = Counter(record for command, inner in commands for record in _options(command, inner))
    shared = {record: record[0] for record, count in counts.items() if count > FEW}
    lines = [
        "# Commands",
        "",
        "Every command and option, generated from the code. `pikaci COMMAND --help` and",
        "`man pikaci` say the same.",
        "",
        *_table("command", _summaries(context)),
        "",
        "## Exit codes",
        "",
        *_table("code", EXIT_CODES),
        "",
        "`pikaci run --exit-code command` has others: see [output.md](output.md#exit-codes).",
        "",
        "## Options of many commands",
        "",
        *_table("option", sorted(shared)),
    ]
    for command, inner in commands:
        lines += ["", f"## {inner.command_path}", "", *_command(command, inner, shared)]
    return "\n".join(lines) + "\n"


def _summaries(context: click.Context) -> Iterator[Record]:
    for name, (_, text) in COMMANDS.items():
        yield f"[{name}](#pikaci-{name})", text


def _command(
    command: click.Command, inner: click.Context, shared: dict[Record, str]
) -> Iterator[str]:
    yield from ("```text", f"{inner.command_path} {' '.join(command.collect_usage_pieces(inner))}")
    yield from ("```", "", *_prose(command.help or ""))
    options = _options(command, inner)
    own = [record for record in options if record not in shared]
    if own:
        yield from ("", *_table("option", own))
    if also := [f"`{_name(record)}`" for record in options if record in shared]:
        yield from ("", f"Also {', '.join(also)}: [above](#options-of-many-commands).")


def _options(command: click.Command, context: click.Context) -> list[Record]:
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    records = [option.get_help_record(context) for option in options if option.name != "help"]
    return [record for record in records if record is not None]


def _name(record: Record) -> str:
    """The long name of an option, without its value."""
    return record[0].split(", ")[-1].split(" ")[0]


def _table(kind: str, records: Iterator[Record] | list[Record] | tuple[Record, ...]) -> list[str]:
    lines = [f"| {kind} | |", "|---|---|"]
    for name, text in records:
        shown = name if name.startswith("[") else f"`{name}`"
        lines.append(f"| {_cell(shown)} | {_cell(text)} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*" if "`" not in text else "*")


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; those behind a \\b keep their lines, as in `--help`."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        first, *rest = paragraph.splitlines()
        if number:
            yield ""
        if first.strip() == "\b":
            yield from ("```text", *(line.strip() for line in rest), "```")
        else:
            yield from (first, *rest)
