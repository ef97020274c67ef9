"""Prints apt's line for this Debian's backports: the existing source with another suite."""

import sys
from pathlib import Path

from orchestrator.image.debian import APT, debian_sources

sources = debian_sources(Path(sys.argv[1]) if len(sys.argv) > 1 else APT)
suite = f" {sources.codename} "
line = next(line for line in sources.lines if suite in line)
print(line.partition(suite)[0], f"{sources.codename}-backports", "main")
