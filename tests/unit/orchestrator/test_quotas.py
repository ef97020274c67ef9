"""How a pool's quotas are read from the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.host.quotas import quotas_of

POOL = Path("/pools/ours")
MOUNTS = f"""\
/dev/vda / ext4 rw 0 0
/dev/loop7 {POOL} btrfs rw 0 0
/dev/loop8 {POOL}/other btrfs rw 0 0
"""


@pytest.mark.parametrize(
    ("files", "quotas"),
    [
        ({}, "off"),
        ({"enabled": "1", "mode": "squota"}, "simple"),
        ({"enabled": "1", "mode": "qgroup"}, "full"),
        ({"enabled": "1"}, "full"),  # Linux before 6.7
        ({"enabled": "1", "mode": "of a later Linux"}, None),
    ],
)
def test_the_kernel_tells(files: dict[str, str], quotas: str | None, tmp_path: Path) -> None:
    """By the device that is mounted there, not by another pool's."""
    (tmp_path / "mounts").write_text(MOUNTS)
    for device in ("loop7", "loop8"):
        (tmp_path / "sys" / f"uuid-of-{device}" / "devices" / device).mkdir(parents=True)
    for name, text in files.items():
        file = tmp_path / "sys" / "uuid-of-loop7" / "qgroups" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{text}\n")

    assert quotas == quotas_of(POOL, tmp_path / "mounts", tmp_path / "sys")


def test_what_is_no_btrfs_has_none(tmp_path: Path) -> None:
    """A pool of another driver, or on another machine."""
    (tmp_path / "mounts").write_text(MOUNTS)

    assert quotas_of(Path("/"), tmp_path / "mounts", tmp_path) is None
    assert quotas_of(Path("/none"), tmp_path / "mounts", tmp_path) is None
    assert quotas_of(POOL, tmp_path / "none", tmp_path) is None
