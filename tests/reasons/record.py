"""Runs the tools of `tools/` anew, and stores what they print: `python -m tests.reasons.record`.

Each `NAME.toml` has a command, which fails, and its files. What it prints becomes `NAME.log`. A tool
that is not installed keeps its log. Names are arguments: `python -m tests.reasons.record pytest`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parent / "tools"
WORKSPACE = b"/workspace/snapshot"  # where a job finds its files
NOT_FOUND = 127
# A log says nothing of the machine on which it was made: where its home is, and from where it gets
# packages. Addresses of rustc's and Node's documentation go, too.
_ADDRESS = re.compile(rb"\b(?:https?|file)://[^\s\"')\]>]+")
_ANY_NUMBER = re.compile(rb"(thread '[^']*' \(|/tmp/cc)\w+(\)|\.o)")
_HOST = re.compile(rb"\b[\w-]+(?:\.[\w-]+)*\.(?:org|com|io|net)\b(?!/price)")


def load(name: str) -> dict[str, Any]:
    """What `NAME.toml` says."""
    return tomllib.loads((TOOLS / f"{name}.toml").read_text())


def record(name: str) -> bytes | None:
    """What the tool prints; None if it is not installed."""
    case = load(name)
    with tempfile.TemporaryDirectory(prefix="reasons-") as base:
        place = Path(base) / "snapshot"
        place.mkdir()
        for path, text in case.get("files", {}).items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text.removeprefix("\n"))
        # As the runner does it.
        ran = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", case["command"]],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            timeout=600,
        )
        if ran.returncode == NOT_FOUND and case.get("exit_code") != NOT_FOUND:
            return None
        if (ran.returncode == 0) != case.get("passes", False):
            raise SystemExit(f"{name} exited with {ran.returncode}")
        printed = ran.stdout.replace(os.fsencode(place), WORKSPACE)
        printed = printed.replace(os.fsencode(base), b"/workspace")
    for directory in os.get_exec_path():
        if not directory.startswith(("/usr", "/bin", "/sbin")):
            printed = printed.replace(os.fsencode(Path(directory).parent), b"/opt/tools")
    printed = printed.replace(os.fsencode(Path.home()), b"/home/pikaci")
    # So that a log that is made again is the same.
    printed = _ANY_NUMBER.sub(rb"\g<1>1\g<2>", printed)
    return _HOST.sub(b"host.example", _ADDRESS.sub(b"https://host.example", printed))


def _environment() -> dict[str, str]:
    """What tools see: nothing of how this machine gets packages, and that they run in CI."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, "CI": "true"}


def main(names: list[str]) -> None:
    for name in names or sorted(path.stem for path in TOOLS.glob("*.toml")):
        log = record(name)
        if log is None:
            print(f"{name}: not installed, its log stays")
        else:
            (TOOLS / f"{name}.log").write_bytes(log)


if __name__ == "__main__":
    main(sys.argv[1:])
