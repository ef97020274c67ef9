"""The text of a job file for what was found.

The project's own files are the source of names and commands, and anybody may have written those.
So every value is escaped: nothing in it can become another key.
"""

from __future__ import annotations

import json
import re
import textwrap

from orchestrator.init.findings import Findings, Job

_HEAD = """\
# Jobs for pikaci; `pikaci run` runs them all, each in a throw-away guest. Written by `pikaci init`
# for {kind}; change it as you like. The keys: docs/job-file.md.
schema = 1
"""
_GIT = """\
# The project's version comes from git: jobs find a .git with the commit and its tags.
[snapshot]
git = true
"""
_MIRRORS = """\
# host_mirrors: jobs use the package indexes and mirrors that this host's settings name.
# It has no effect on a host without such settings: docs/egress.md.
"""
_WIDTH = 100


def write(found: Findings) -> str:
    """A job file with the jobs, and what was not understood at its end."""
    parts = [_HEAD.format(kind=_one_line(found.kind))]
    if found.git:
        parts.append(_GIT)
    if found.mirrors:
        parts.append(_MIRRORS)
    parts += [_job(job) for job in found.jobs]
    if found.notes:
        parts.append("\n".join(["# Not understood:", *(_comment(f"- {n}") for n in found.notes)]))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _job(job: Job) -> str:
    lines = [_comment(job.comment), f"[jobs.{_key(job.name)}]"]
    return "\n".join(
        [*lines, *(f"{_key(key)} = {_value(value)}" for key, value in job.keys.items())]
    )


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(
        _one_line(text), _WIDTH, initial_indent="# ", subsequent_indent="# ",
        break_long_words=False, break_on_hyphens=False,
    ))  # fmt: skip


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(one)}' for key, one in value.items())} }}"
    raise TypeError(type(value).__name__)


def _key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _basic(key)


def _string(text: str) -> str:
    plain = all(char.isprintable() or char == "\n" for char in text)
    if "\n" in text:
        literal = plain and text.endswith("\n") and "'''" not in text
        return f"'''\n{text}'''" if literal else _basic(text)
    if plain and "'" not in text and ('"' in text or "\\" in text):
        return f"'{text}'"
    return _basic(text)


def _basic(text: str) -> str:
    # JSON's escapes are TOML's too, but JSON leaves DEL as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
