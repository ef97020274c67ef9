"""The schema of the whole job file, for editors, from the types and the notes on each key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.jobfile import SCHEMA
from states.spec import NAME_PATTERN, JobSpec

TITLE = "pikaci.toml"
_GLOBS = {"type": "array", "items": {"type": "string", "minLength": 1}}
_SNAPSHOT = {
    "include": "globs of files that git ignores, and that jobs need",
    "exclude": "globs of files that jobs do not need",
}


def job_file_schema(notes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The schema; `notes` are on the keys of each type, by its name.

    Defaults have the keys of a job, and need none; a job needs a command if they have none.
    """
    definitions: dict[str, Any] = msgspec.json.schema(JobSpec)["$defs"]
    for definition in definitions.values():
        definition.pop("title", None)
        definition.pop("description", None)
    for name, texts in notes.items():
        keys = definitions[name]["properties"]
        for key, text in texts.items():
            # Beside a `$ref`, editors that know only older drafts ignore it.
            keys[key]["description"] = _plain(text)
    job = definitions.pop(JobSpec.__name__)
    del job["required"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "type": "object",
        "properties": {
            "schema": {"const": SCHEMA, "description": "the version of the job file's form"},
            "defaults": {"$ref": "#/$defs/Job"},
            "jobs": {
                "type": "object",
                "propertyNames": {"pattern": NAME_PATTERN},
                "minProperties": 1,
                "additionalProperties": {"$ref": "#/$defs/Job"},
            },
            "snapshot": {
                "type": "object",
                "properties": {
                    key: {**_GLOBS, "description": text} for key, text in _SNAPSHOT.items()
                },
                "additionalProperties": False,
            },
        },
        "required": ["schema", "jobs"],
        "additionalProperties": False,
        "if": {
            "properties": {"defaults": {"required": ["command"]}},
            "required": ["defaults"],
        },
        "else": {
            "properties": {"jobs": {"additionalProperties": {"required": ["command"]}}},
        },
        "$defs": {"Job": job, **definitions},
    }


def _plain(note: str) -> str:
    """A note of the table in docs/ as text for an editor: without links and what points below."""
    without = re.sub(r"; see (below|\[[^]]*\]\([^)]*\))", "", note)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", without)
