"""Jobs as JSON, from a program: one job, or a whole job file, in the schemas of docs/schema/."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.jobfile import MAX_BYTES, SCHEMA, JobFile, bad, check, read_file, refuse
from orchestrator.units import size
from states.mistakes import mistakes
from states.rules import broken_rules
from states.spec import JobSpec

STDIN = Path("stdin")
# The name of a job that came without one.
NAME = "job"
ALLOWED = 'a job such as {"command": "make"}, or a job file as JSON'


def load_json(path: Path) -> JobFile:
    """Read jobs from a file, or from stdin if the path is `-`.

    An object with `jobs` is a job file, and any other a job, which gets the name "job". Relative
    host paths begin at the file, or at the current directory. `UsageError` with all mistakes, or
    `NoJobs`.
    """
    where = STDIN if str(path) == "-" else path
    document = _parse(where, _read_stdin() if where is STDIN else read_file(path))
    if "jobs" in document or "schema" in document:
        return check(where, document)
    found = mistakes(document, JobSpec)
    if not found:
        spec = msgspec.convert(document, JobSpec)
        # One that asks for a writable workspace is rejected in its own words.
        found = [] if spec.writable_workspace else list(broken_rules(spec))
    refuse(where, found)
    return check(where, {"schema": SCHEMA, "jobs": {NAME: document}})


def _read_stdin() -> bytes:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
    except OSError as error:
        raise bad(STDIN, f"cannot be read: {error.strerror}", ALLOWED) from None
    if len(data) > MAX_BYTES:
        raise bad(STDIN, f"has more than {size(MAX_BYTES)}", "fewer jobs at a time")
    return data


def _parse(where: Path, data: bytes) -> dict[str, Any]:
    if not data.strip():
        raise bad(where, "is empty", ALLOWED)
    try:
        document = msgspec.json.decode(data.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad(where, f"is not JSON: {error}", ALLOWED) from None
    except RecursionError:
        raise bad(where, "is nested too deeply", ALLOWED) from None
    if not isinstance(document, dict):
        raise bad(where, "is not a JSON object", ALLOWED)
    return document
