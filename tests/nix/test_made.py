"""What nix/ makes, made and used as far as that goes without nixpkgs."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract import contract, guest_files
from tests.runner.guest import CONTRACT, Guest

from .evaluation import Nix, place_of

# The script that makes the metadata, and a file for it.
_METADATA = """
let
  lib = import ./tests/nix/stubs/lib.nix;
in
import ./nix/incus/metadata.nix {{
  inherit lib;
  stdenv.hostPlatform.parsed.cpu.name = "x86_64";
  writeText = builtins.toFile;
  runCommand = _: _: script: script;
  kind = "VM";
  {more}
}}
"""


def _metadata(nix: Nix, directory: Path, more: str = "") -> dict[str, Any]:
    script = nix.evaluate(_METADATA.format(more=more))
    environment = {"PATH": os.environ["PATH"], "out": str(directory / "out")}
    subprocess.run(["bash", "-ec", script], cwd=directory, env=environment, check=True)
    with tarfile.open(directory / "out/metadata.tar.xz") as members:
        (member,) = members.getmembers()
        content = members.extractfile(member)

        assert ("metadata.yaml", 0, 0, 1) == (member.name, member.uid, member.gid, member.mtime)
        assert content is not None
        metadata: dict[str, Any] = json.load(content)
    return metadata


def test_an_image_s_metadata_is_what_incus_reads(nix: Nix, tmp_path: Path) -> None:
    """Architecture, date and properties; the version of the contract among these."""
    metadata = _metadata(nix, tmp_path)
    properties = metadata["properties"]

    assert ("x86_64", 1) == (metadata["architecture"], metadata["creation_date"])
    assert ("NixOS", "99.11", "x86_64") == (
        properties["os"],
        properties["release"],
        properties["architecture"],
    )
    assert str(contract().version) == properties[contract().image_property]
    assert all(isinstance(value, str) for value in properties.values())


def test_an_image_says_what_it_requires(nix: Nix, tmp_path: Path) -> None:
    """Incus then refuses to start it as it cannot boot."""
    metadata = _metadata(nix, tmp_path, 'requirements.secureboot = "false";')

    assert "false" == metadata["properties"]["requirements.secureboot"]


@pytest.fixture
def guest(nix: Nix, tmp_path: Path) -> Any:
    """A guest that has the wrapper where a NixOS guest has it, and the runner elsewhere."""
    if os.geteuid() != 0:
        pytest.fail("this makes mount and PID namespaces: run it as root")
    wrapper = nix.evaluate(
        "removeAttrs (import ./tests/nix/stubs).packages.x86_64-linux.incus-run.arguments"
        ' [ "passthru" ]'
    )
    place = place_of(guest_files() / "pikaci-incus-run")
    text = wrapper["text"].replace("/stub/bash/bin/bash", "/bin/bash")
    exports = "".join(f"export {key}='{value}'\n" for key, value in wrapper["runtimeEnv"].items())
    with Guest(tmp_path) as guest:
        guest.mkdir("/stub")
        runner = guest.path(place)
        runner.write_bytes((guest_files() / "pikaci-incus-run").read_bytes())
        runner.chmod(0o755)
        guest.path(CONTRACT["runner"]).write_text(
            f"#!/bin/bash\nset -o errexit\nset -o nounset\nset -o pipefail\n{exports}\n{text}"
        )
        yield guest


@pytest.mark.parametrize("root", [False, True], ids=["pikaci", "root"])
def test_the_runner_runs_behind_its_wrapper(guest: Guest, root: bool) -> None:
    """All of its parts start again from the file itself; the job finds its libraries."""
    ended = guest.run('echo "$PKG_CONFIG_PATH"; exit 7', root=root)

    assert 7 == ended.code, ended.stderr
    assert b"/stub/openssl/lib/pkgconfig" in ended.output
    assert ended.stdout == ended.log
    assert ended.result is not None
    assert ("failed", 7, "n0nce") == (
        ended.result["status"],
        ended.result["exit_code"],
        ended.result["nonce"],
    )


def test_a_job_s_own_variable_beats_the_wrapper_s(guest: Guest) -> None:
    """What the image offers is a default."""
    ended = guest.run('echo "$PKG_CONFIG_PATH"', send={"PKG_CONFIG_PATH": "mine"})

    assert b"mine\n" == ended.output


def test_a_job_is_followed_and_ended_through_the_wrapper(guest: Guest) -> None:
    """Its words reach the runner."""
    ended = guest.run("echo once; sleep 300", timeout_secs=1, send={"PIKACI_INCUS_GRACE_SECS": "0"})
    code, stdout, _ = guest.call("follow", "0")

    assert (124, ended.log) == (code, stdout)
    assert b"once" in stdout
    assert 0 == guest.call("cancel")[0]
