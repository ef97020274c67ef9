"""Which rows passed, for this source tree and this image: a pass over all takes hours on a slow host.

So it can be cut in parts: a row that passed is left out until something changes.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "build/vm-rows.json"
_SOURCES = ("states", "orchestrator", "nix/guest", "tests/vm", "tests/integration")


def tree_digest(root: Path = ROOT) -> str:
    """A digest of all that a row runs; of a checkout or of an unpacked archive alike."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and path.suffix not in (".pyc", ".pyo"):
                digest.update(f"{path.relative_to(root)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Remembered:
    """The rows that passed, in a file; those of another tree or image are forgotten."""

    def __init__(self, tree: str, image: str, file: Path = FILE) -> None:
        self._what = {"tree": tree, "image": image}
        self._file = file
        try:
            known: dict[str, Any] = json.loads(file.read_text())
        except (OSError, ValueError):
            known = {}
        same = all(known.get(key) == value for key, value in self._what.items())
        self.rows: dict[str, dict[str, Any]] = known["rows"] if same else {}

    def passed(self, row: str, secs: float) -> None:
        """Write down that the row passed, and how long it took."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.rows[row] = {"at": now, "secs": round(secs)}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({**self._what, "rows": self.rows}, indent=1) + "\n")
        new.rename(self._file)
