"""`--output` means the same in every command: `json` one document, `jsonl` a line for each item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import trio

from orchestrator.cli.group import pikaci
from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from tests.samples import sample_life
from tests.unit.orchestrator.test_ending import start

# What they print has a form of its own.
OTHERS = {"serve", "shell", "completion", "trace export"}


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        elif command is not None:
            yield " ".join((*names, name)), command


ALL = dict(commands(pikaci))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state root with a run of one job that passed."""
    where = StateRoot(tmp_path_factory.mktemp("output") / "root")
    where.make()

    async def write() -> None:
        with open_journal(where.journal) as journal:
            await journal.append(*sample_life())

    trio.run(write)
    return where.path


@pytest.mark.parametrize("name", sorted(ALL.keys() - OTHERS))
def test_every_command_has_it(name: str) -> None:
    """With the same words."""
    (option,) = [param for param in ALL[name].params if param.name == "output"]

    assert isinstance(option.type, click.Choice)
    assert ["human", "json", "jsonl"] == list(option.type.choices)


def test_every_command_is_described_where_it_is_not_imported() -> None:
    """The help of the group has a line for each; the command's own help begins differently."""
    for name, command in ALL.items():
        assert command.help, name
        assert command.help.split("\n")[0].endswith("."), name


@pytest.mark.parametrize(
    "words",
    [
        *("list", "status", "cancel --all", "gc", "gc -n", "trace", "trace show", "doctor"),
        *("run -n -- true", "init --print"),
    ],
)
def test_a_line_each_is_the_document_in_pieces(root: Path, words: str) -> None:
    """Both are JSON, and nothing else is on stdout."""

    def printed(output: str) -> str:
        command, end, rest = words.partition(" -- ")
        line = f"{command} --output {output}{end}{rest}"
        stdout, _ = start(root, *line.split()).communicate(timeout=60)
        return stdout.decode()

    document = json.loads(printed("json"))
    items: list[Any] = [json.loads(line) for line in printed("jsonl").splitlines()]

    whole = document if isinstance(document, list) else document.get("jobs")
    if not isinstance(whole, list):
        whole = [document]
    assert [sorted(one) for one in whole] == [sorted(one) for one in items]


def test_an_error_is_text_on_stderr_with_every_output(root: Path) -> None:
    """stdout has a whole document, or nothing."""
    stdout, stderr = start(root, "status", "nothing", "--output", "json").communicate(timeout=60)

    assert b"" == stdout
    assert stderr.startswith(b"pikaci: there is no job or run 'nothing'")
