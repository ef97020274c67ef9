"""Reads this machine's Debian sources, for a guest of the same release."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from states.errors import PikaciError

APT = Path("/etc/apt")


class NotDebian(PikaciError):
    """This machine does not run Debian, so it cannot build the guest image."""


@dataclass(frozen=True)
class DebianSources:
    """`lines` are apt's one-line entries for the release, its updates and its security fixes."""

    codename: str
    lines: tuple[str, ...]


def debian_sources(apt: Path = APT, *, backports: bool = False) -> DebianSources:
    """Read where this machine gets its packages. `NotDebian` if it is not Debian.

    With `backports`, also the release's backports, if this machine uses them.
    """
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        raise NotDebian(
            "the guest image is built from a Debian machine's own sources; this is"
            f" {release.get('PRETTY_NAME', 'an unknown system')}",
            resolution="build it on Debian, and import the file here: `incus image import`",
        )
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    if backports:
        suites.add(f"{codename}-backports")
    lines = [
        line
        for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
        if path.is_file()
        for line in entries(path.name, path.read_text("utf-8", "replace"), suites)
    ]
    if not any(f" {codename} " in line for line in lines):
        raise PikaciError(
            f"{apt} has no package source for {codename}",
            resolution="check sources.list and sources.list.d",
        )
    return DebianSources(codename, tuple(dict.fromkeys(lines)))


def entries(name: str, text: str, suites: set[str]) -> list[str]:
    """The entries for these suites in an apt file of either format, in one-line form."""
    if name.endswith(".list"):
        return [line for line in text.splitlines() if _suite_of(line) in suites]
    if not name.endswith(".sources"):
        return []
    return [
        f"deb {_options(stanza)}{uri} {suite} {stanza['components']}"
        for stanza in map(_stanza, re.split(r"\n\s*\n", text))
        if "deb" in stanza.get("types", "").split() and stanza.get("enabled", "yes") != "no"
        for uri in stanza.get("uris", "").split()
        for suite in stanza.get("suites", "").split()
        if suite in suites and "components" in stanza
    ]


def _suite_of(line: str) -> str:
    found = re.match(r"\s*deb\s+(?:\[[^]]*\]\s+)?\S+\s+(\S+)\s+\S", line)
    return found.group(1) if found else ""


def _stanza(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[last] = f"{fields.get(last, '')}\n{line.strip()}"
        elif ":" in line:
            last, value = line.split(":", 1)
            last = last.lower()
            fields[last] = value.strip()
    return fields


def _options(stanza: dict[str, str]) -> str:
    signed_by = stanza.get("signed-by", "")
    # If the key is inline, over several lines, rely on apt's own keyrings.
    return (
        f"[signed-by={signed_by}] " if signed_by.startswith("/") and "\n" not in signed_by else ""
    )


def without_credentials(text: str) -> str:
    """The text with `user:password@` removed from its addresses."""
    return re.sub(r"://[^/\s]*@", "://", text)
