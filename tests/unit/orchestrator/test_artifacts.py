"""`pikaci artifacts`: what a job left is listed, and copied to where it was asked for alone."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest
import trio

from orchestrator.attempt.archive import CollectedFile, Manifest, RefusedFile, write_manifest
from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from states import events as ev
from tests.samples import sample_life
from tests.unit.orchestrator.test_ending import start

FILES = {"report.xml": b"<ok/>\n", "bin/tool": b"#!/bin/sh\n", "bin/data/big": b"x" * 3_000_000}


def write(base: Path, files: dict[str, bytes], *, names: tuple[str, ...] = ()) -> Path:
    """A state root with a job that left these files, and some whose names alone are listed."""
    where = StateRoot(base / "root")
    where.make()
    attempt = where.path / "attempt"
    for name, data in files.items():
        path = attempt / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name.endswith("tool") else 0o644)
    attempt.mkdir(exist_ok=True)
    collected = [*files.items(), *((name, b"") for name in names)]
    write_manifest(
        attempt,
        Manifest(
            files=tuple(
                CollectedFile(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
                for name, data in collected
            ),
            refused=(RefusedFile(path="link", reason="is a link"),),
            problem="",
        ),
    )

    async def append() -> None:
        with open_journal(where.journal) as journal:
            for event in sample_life():
                if isinstance(event, ev.ArtifactsReset):
                    event = msgspec.structs.replace(event, artifacts=str(attempt))
                await journal.append(event)

    trio.run(append)
    return where.path


def pikaci(root: Path, *words: str) -> tuple[int, str, str]:
    process = start(root, "artifacts", *words)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout.decode(), stderr.decode()


def test_they_are_listed_with_their_sizes(tmp_path: Path) -> None:
    """By name; what was refused is a warning. JSON has all of the manifest."""
    root = write(tmp_path, FILES)

    code, listed, warned = pikaci(root)
    document = json.loads(pikaci(root, "--output", "json")[1])
    lines = [json.loads(line) for line in pikaci(root, "--output", "jsonl")[1].splitlines()]

    assert (0, "warning: link: is a link\n") == (code, warned)
    assert ["2.9 MiB  bin/data/big", "10 B  bin/tool", "6 B  report.xml"] == [
        line.strip() for line in listed.splitlines()
    ]
    assert lines == document["files"]
    assert sorted(FILES) == [file["path"] for file in lines]
    assert str(root / "attempt/artifacts") == document["directory"]


def test_they_are_copied_byte_for_byte(tmp_path: Path) -> None:
    """Into a directory that is made; what can be executed stays so."""
    root, into = write(tmp_path, FILES), tmp_path / "a/b"

    code, said, _ = pikaci(root, "--to", str(into))

    assert (0, f"copied 3 artifacts to {into}\n") == (code, said)
    assert FILES == {
        str(path.relative_to(into)): path.read_bytes() for path in into.rglob("*") if path.is_file()
    }
    assert os.access(into / "bin/tool", os.X_OK)
    assert not (into / "report.xml").stat().st_mode & 0o111


def test_an_existing_file_is_replaced_by_force_alone(tmp_path: Path) -> None:
    """Without it nothing is copied. A link in its place is replaced, and not followed."""
    root, into = write(tmp_path, FILES), tmp_path / "out"
    into.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (into / "report.xml").symlink_to(precious)

    code, _, said = pikaci(root, "--to", str(into))

    assert (2, ["report.xml"]) == (code, [path.name for path in into.iterdir()])
    assert f"{into} already has report.xml" in said
    assert 0 == pikaci(root, "--to", str(into), "--force")[0]
    assert "mine" == precious.read_text()
    assert FILES["report.xml"] == (into / "report.xml").read_bytes()
    assert not (into / "report.xml").is_symlink()
    assert 3 == sum(path.is_file() for path in into.rglob("*"))


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/pikaci-out", "a/../../out", "", "a//b", ".", "bin", "a\0b"]
)
def test_a_hostile_name_leads_nowhere(tmp_path: Path, name: str) -> None:
    """A manifest may say what it wants."""
    root, into = write(tmp_path, {"bin/tool": b"x"}, names=(name,)), tmp_path / "into"

    code, _, said = pikaci(root, "--to", str(into))

    assert code in (2, 4)
    assert "Traceback" not in said
    assert {"root", "into"} >= {path.name for path in tmp_path.iterdir()}
    assert not Path("/tmp/pikaci-out").exists()


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    """Neither in what the job left, nor where it is copied to."""
    root, into = write(tmp_path, FILES), tmp_path / "into"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    into.mkdir()
    (into / "bin").symlink_to(elsewhere)

    code, _, said = pikaci(root, "--to", str(into), "--force")

    assert (4, []) == (code, list(elsewhere.iterdir()))
    assert "cannot be written" in said


def test_a_file_that_was_changed_is_told(tmp_path: Path) -> None:
    """By its hash; it is not there afterwards."""
    root, into = write(tmp_path, FILES), tmp_path / "into"
    (root / "attempt/artifacts/report.xml").write_bytes(b"<no/>\n")

    code, _, said = pikaci(root, "--to", str(into))

    assert (4, True) == (code, "was changed after it was collected" in said)
    assert not (into / "report.xml").exists()


def test_a_job_that_left_nothing(tmp_path: Path) -> None:
    """It is no error."""
    assert 0 == pikaci(write(tmp_path, {}))[0]
    assert 2 == pikaci(tmp_path / "root", "--force")[0]
