"""nix/contract.nix and the Python side read one contract."""

from __future__ import annotations

import msgspec

from orchestrator.contract import Contract, contract, guest_files
from orchestrator.image.layer import tmpfiles

from .evaluation import Nix


def test_the_contract_is_the_same_in_nix(nix: Nix) -> None:
    """Every path, name, owner and mode; no field is in one of the two alone."""
    ours = msgspec.json.decode(msgspec.json.encode(contract()))
    theirs = nix.evaluate("import ./nix/contract.nix")

    assert ours == {key: theirs[key] for key in ours}
    assert contract() == msgspec.convert(theirs, Contract)
    texts = {"deadlineText", "egressText", "readyText", "runnerText"}
    assert {"imageProperties", "tmpfilesRules", *texts} == theirs.keys() - ours.keys()


def test_the_tmpfiles_rules_make_the_directories(nix: Nix) -> None:
    """One rule a directory, with its mode and owner, and a parent before what is in it."""
    rules = nix.evaluate("(import ./nix/contract.nix).tmpfilesRules")

    assert [
        f"d {one.path} {one.mode} {one.user} {one.group} -" for one in contract().directories
    ] == rules
    assert tmpfiles().splitlines()[: len(rules)] == rules  # as in a Debian guest with systemd
    paths = [rule.split()[1] for rule in rules]
    for index, path in enumerate(paths):
        assert not [parent for parent in paths[index:] if path.startswith(f"{parent}/")]


def test_the_scripts_are_byte_for_byte_the_files_that_are_tested(nix: Nix) -> None:
    """What a NixOS image carries is what the runner's tests run."""
    texts = nix.evaluate(
        "with import ./nix/contract.nix; [ runnerText egressText deadlineText readyText ]",
    )

    names = ("pikaci-incus-run", "pikaci-egress", "pikaci-deadline", "pikaci-ready")
    assert [(guest_files() / name).read_bytes() for name in names] == [
        text.encode() for text in texts
    ]


def test_an_image_says_which_version_it_keeps(nix: Nix) -> None:
    """In the property that is looked at before an instance is made."""
    properties = nix.evaluate("(import ./nix/contract.nix).imageProperties")

    ours = contract()
    assert {
        ours.image_property: str(ours.version),
        ours.minor_property: str(ours.minor),
    } == properties
