"""Threads that are the first to decode a type at once do not crash the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROCESSES = 5
# msgspec 0.22 reads type information that another thread is still making: about two of three such
# processes crashed while each call made its own.
THREADS = """
import sys, threading
from pathlib import Path
from orchestrator.attempt.archive import read_manifest
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def read():
    start.wait()
    read_manifest(Path(sys.argv[1]))
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_jobs_that_end_together_read_their_manifests(tmp_path: Path) -> None:
    """Each in a thread of its own, in a process that has read none before."""
    (tmp_path / "manifest.json").write_text('{"files": [], "refused": [], "problem": ""}')

    codes = [
        subprocess.run([sys.executable, "-c", THREADS, str(tmp_path)], timeout=60).returncode
        for _ in range(PROCESSES)
    ]

    assert [0] * PROCESSES == codes
