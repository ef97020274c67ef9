"""Fixtures: Nix, with a store of its own."""

from __future__ import annotations

import shutil

import pytest

from .evaluation import Nix


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    """Nix; where there is none, what needs it is skipped, and says so."""
    if shutil.which("nix-instantiate") is None:
        pytest.skip("there is no nix (`.ci/nix` installs one): nix/ is NOT evaluated")
    return Nix(tmp_path_factory.mktemp("nix"))
