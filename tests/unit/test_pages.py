"""The pages for people: links lead somewhere, and commands and TOML are what pikaci takes."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from orchestrator.cli.group import pikaci
from orchestrator.errors import NoJobs
from orchestrator.hosts.settings import parse_hosts
from orchestrator.jobfile import load
from tests.pages import PAGES, ROOT, Block, blocks, prose

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=IDS)
# Job files and hosts are told by their tables; others are for other programs, or parts of a table.
HOSTS, JOBS = {"hosts"}, {"schema", "defaults", "jobs", "snapshot"}
SHELLS = ("sh", "bash", "console", "")
# What stands for a value, and a value.
EXAMPLES = {"N": "3", "TIME": "10m", "SIZE": "2GiB"}
# The name of any command.
ANY = "COMMAND"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that exists, and to a heading of it."""
    wrong = [link for link in links(page) if not leads_somewhere(page, link)]

    assert [] == wrong


@every_page
def test_commands_are_what_pikaci_takes(page: Path) -> None:
    """Every `pikaci ...` in a block or in a line: no unknown command, option or value."""
    wrong = [(line, why) for line, part in commands(page) if (why := refusal(line, part=part))]

    assert [] == wrong


@every_page
def test_job_files_and_hosts_are_valid(page: Path, tmp_path: Path) -> None:
    """Each block of TOML that is one, also a part of one."""
    for block in blocks(page.read_text()):
        if block.language == "toml":
            check_toml(block, tmp_path / "pikaci.toml")


@cache
def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", prose(page.read_text(), code=True), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = found[anchor] = found.get(anchor, -1) + 1
        found |= {f"{anchor}-{count}": 0} if count else {}
    return set(found)


def links(page: Path) -> list[str]:
    text = prose(page.read_text())
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)


def leads_somewhere(page: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in anchors(target)


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """The lines of shell that begin with pikaci; and those in sentences, which may be parts."""
    text = page.read_text()
    shell = "\n".join(block.text for block in blocks(text) if block.language in SHELLS)
    plain = prose(text, code=True)
    shell += "\n" + "\n".join(re.findall(r"^ {4,}(\S.*)$", plain, re.MULTILINE))
    for line in shell.replace("\\\n", " ").splitlines():
        if found := re.match(
            r"(?:\$ )?(?:\w+=\S* )*(?:\.venv/bin/)?(pikaci(?: .*)?)$", line.strip()
        ):
            yield found[1], False
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", " ".join(plain.split())):
        if span.startswith("pikaci "):
            yield span, True


def refusal(line: str, *, part: bool = False) -> str:
    """Why pikaci refuses the command; "" if it takes it. A `part` may lack what has to be given.

    Files that it names need not exist.
    """
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if re.fullmatch(r"[|&;]+|\d?>.*", word):
            break
        word = word.rstrip(";").partition("|")[0]  # one of several
        words += [EXAMPLES.get(word, word)] if word != "..." else []
    try:
        context = pikaci.make_context("pikaci", words[1:])
        while isinstance(context.command, click.Group):
            left = [*getattr(context, "_protected_args", ()), *context.args]
            if not left or left[0] == ANY:
                return ""
            _, command, left = context.command.resolve_command(context, left)
            assert command is not None
            context = command.make_context(command.name, left, parent=context)
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        return ""
    except click.BadParameter as error:
        there = isinstance(error.param and error.param.type, click.Path | click.File)
        return "" if there or (part and isinstance(error, click.MissingParameter)) else str(error)
    except click.BadOptionUsage as error:
        return "" if part else error.format_message()
    except click.ClickException as error:
        return error.format_message()
    return ""


def check_toml(block: Block, path: Path) -> None:
    """Raise what pikaci says of it."""
    tables = tomllib.loads(block.text).keys()
    if tables & HOSTS:
        parse_hosts(block.text.encode(), path)
    elif tables and tables <= JOBS:
        path.write_text(block.text if "schema" in tables else f"schema = 1\n{block.text}")
        try:
            load(path)
        except NoJobs:
            assert "jobs" not in tables


def test_a_wrong_page_is_seen(tmp_path: Path) -> None:
    """By each of the checks."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` page\n[a](#a-b-page) [b](#b) [c](none.md)\n\n    pikaci run --nothing\n\n`pikaci go`\n"
    )

    assert ["#b", "none.md"] == [link for link in links(page) if not anchor_here(page, link)]
    wrong = [line for line, part in commands(page) if refusal(line, part=part)]
    assert ["pikaci run --nothing", "pikaci go"] == wrong


def anchor_here(page: Path, link: str) -> bool:
    return link.startswith("#") and link[1:] in anchors(page)
