"""Syncs a file system."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file_system(directory: Path) -> None:
    """Sync the file system of a directory: once, instead of file by file. Blocks."""
    import ctypes  # here: commands that only look need not load it

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed")
    finally:
        os.close(descriptor)
