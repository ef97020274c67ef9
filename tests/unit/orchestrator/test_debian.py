"""The machine's own Debian sources, in both of apt's formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.image.debian import debian_sources, entries, without_credentials

SUITES = {"bookworm", "bookworm-updates"}
ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb http://deb.example/debian bookworm main contrib
deb [arch=amd64 signed-by=/k.gpg] http://deb.example/debian bookworm-updates main
deb http://deb.example/debian bookworm-backports main
deb-src http://deb.example/debian bookworm main
"""
STANZAS = """\
# a comment
Types: deb deb-src
URIs: http://deb.example/debian http://two.example/debian
Suites: bookworm bookworm-updates
 bookworm-backports
Components: main
Signed-By: /k.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""


def test_one_line_sources_of_the_release_are_taken_as_they_are() -> None:
    """Comments, sources and other suites are not."""
    expected = [
        "deb http://deb.example/debian bookworm main contrib",
        "deb [arch=amd64 signed-by=/k.gpg] http://deb.example/debian bookworm-updates main",
    ]

    assert expected == entries("sources.list", ONE_LINE, SUITES)


def test_stanzas_become_a_line_for_each_address_and_suite() -> None:
    """Those that are switched off, or of sources, are not taken."""
    expected = [
        f"deb [signed-by=/k.gpg] http://{host}.example/debian {suite} main"
        for host in ("deb", "two")
        for suite in ("bookworm", "bookworm-updates")
    ]

    assert expected == entries("debian.sources", STANZAS, SUITES)


def test_backports_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM's agent may be there; no other image takes a package from them."""
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
    (tmp_path / "sources.list").write_text(ONE_LINE)
    backports = "deb http://deb.example/debian bookworm-backports main"

    assert backports not in debian_sources(tmp_path).lines
    assert backports in debian_sources(tmp_path, backports=True).lines


def test_other_files_are_no_sources() -> None:
    """As apt does, by their names."""
    assert [] == entries("old.list.save", ONE_LINE, SUITES)


def test_a_password_in_an_address_is_not_shown() -> None:
    """What stands before the host is left out, wherever it comes."""
    text = "Err http://me:secret@deb.example/debian x@y"

    assert "Err http://deb.example/debian x@y" == without_credentials(text)
