"""What a user may say of a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.hosts.settings import parse_hosts

FILE = Path("/etc/hosts.toml")


@pytest.mark.parametrize("key", ['allow_mounts = ["/srv"]', "colour = 1"])
def test_a_key_that_does_nothing_is_refused(key: str) -> None:
    """Whose directories `allow_mounts` would be about, nobody could tell."""
    with pytest.raises(UsageError, match=rf"hosts\.build\.{key.split()[0]}"):
        parse_hosts(f'[hosts.build]\nssh = "build"\n{key}\n'.encode(), FILE)


def test_what_is_not_said_has_a_default() -> None:
    """A file without hosts is none."""
    assert {} == parse_hosts(b"", FILE)
    assert "pikaci" == parse_hosts(b'[hosts.build]\nssh = "me@build"\n', FILE)["build"].pool
