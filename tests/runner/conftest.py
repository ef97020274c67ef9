"""Fixtures: a throw-away guest for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .guest import Guest


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """A guest that keeps the contract, alone in its namespaces; gone after the test."""
    if os.geteuid() != 0:
        pytest.fail("the runner's tests make mount and PID namespaces: run them as root")
    with Guest(tmp_path) as guest:
        yield guest
