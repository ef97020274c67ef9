"""A job file for tests of the command line, and the schemas of what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"


JOBS = """
schema = 1
[defaults]
timeout_secs = 60
[jobs.good]
command = "echo fine"
[jobs.bad]
command = "echo broken; exit 7"
[jobs.slow]
command = "echo begun; sleep 60"
timeout_secs = 1
[jobs.lost]
command = "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'; sleep 20"
run_as_root = true
[jobs.imageless]
command = "true"
image = "no/such"
[jobs.writable]
command = "true"
writable_workspace = true
"""


def valid(name: str, document: Any) -> Any:
    """The document, which has the form that docs/ promises."""
    jsonschema.validate(document, json.loads((SCHEMAS / name).read_text()))
    return document
