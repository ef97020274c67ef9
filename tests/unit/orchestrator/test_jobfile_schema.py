"""The schema for editors accepts what the reader of job files accepts, and finds its mistakes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.errors import UsageError
from orchestrator.jobfile import load
from tests.unit.orchestrator.test_jobfile import BAD, job, write

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "schema" / "pikaci.json").read_text())
# What only the reader finds: rules over several keys or of the guest, and what is no document.
ONLY_THE_READER = {
    "empty command",
    "reserved env",
    "secret of nothing",
    "secret and env",
    "reserved secret",
    "relative mount",
    "mount with ..",
    "mount over /run",
    "mount over /artifacts",
    "mount over /",
    "two mounts on one path",
    "artifact outside",
}


def valid(document: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def parsed(text: str | bytes) -> Any:
    """The document; None for what is no TOML."""
    try:
        return tomllib.loads(text if isinstance(text, str) else text.decode())
    except ValueError:
        return None


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "pikaci.toml").read_text(),
        job(""),
        job("[snapshot]\ninclude = ['a/**']\nexclude = []"),
        'schema = 1\n[defaults]\ncommand = "x"\n[jobs.a]\n[jobs."b/c"]\ncpus = 3',
        job('env = { A = "1" }\nsecrets = { B = { env = "C" } }\ndeadlines = { grace_secs = 0 }'),
        job('mounts = [{ source = ".", path = "/mnt/data" }]\nnetwork = "incusbr0"'),
    ],
)
def test_what_is_read_is_valid(tmp_path: Path, text: str) -> None:
    """An editor complains of nothing that works."""
    load(write(tmp_path, text))

    assert valid(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [row[1] for row in BAD if row[0] not in ONLY_THE_READER and parsed(row[1]) is not None],
    ids=[row[0] for row in BAD if row[0] not in ONLY_THE_READER and parsed(row[1]) is not None],
)
def test_what_is_refused_for_its_form_is_invalid(tmp_path: Path, text: str) -> None:
    """Each mistake of a single key is seen while it is typed."""
    with pytest.raises(UsageError):
        load(write(tmp_path, text))

    assert not valid(parsed(text))


def test_a_file_without_jobs_is_invalid() -> None:
    """As the reader says."""
    assert not valid({"schema": 1})
    assert not valid({"schema": 1, "jobs": {}})


def test_every_key_has_a_description() -> None:
    """What an editor shows beside the cursor; it is text, not a part of a page."""
    for definition in ("Job", "Deadlines"):
        for key, rules in SCHEMA["$defs"][definition]["properties"].items():
            assert rules["description"], key
            assert "](" not in rules["description"]
            assert "see below" not in rules["description"]
