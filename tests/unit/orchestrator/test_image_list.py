"""What `pikaci image list` shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from orchestrator.image.listing import rows, table
from orchestrator.image.store import Image

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def image(number: int, *aliases: str, days: float = 0, **changes: object) -> Image:
    document = {
        "fingerprint": f"{number:02}" * 32,
        "aliases": [{"name": alias} for alias in aliases],
        "properties": {"pikaci.contract": "1"},
        "size": number << 20,
        "uploaded_at": NOW - timedelta(days=days),
        **changes,
    }
    return msgspec.convert(document, Image)


IMAGES = [
    image(3, "old", days=400, properties={}),
    image(
        385,
        "pikaci/dev",
        days=0.5,
        properties={"pikaci.contract": "1", "pikaci.contract.minor": "1"},
    ),
    image(12, "pikaci/nixos-vm", days=2, type="virtual-machine"),
    image(7, days=1, properties={"pikaci.contract": "2"}),
]


def test_the_table_fits_a_terminal() -> None:
    """The newest first, in at most 80 columns; what this pikaci cannot use is marked."""
    shown = table(rows(IMAGES), NOW)

    assert (
        """\
ALIAS                     FINGERPRINT   TYPE       CONTRACT      SIZE     AGE
pikaci/dev                385385385385  container  1.1        385 MiB    12 h
-                         070707070707  container  2.0 (no)     7 MiB    24 h
pikaci/nixos-vm           121212121212  vm         1.0         12 MiB     2 d
old                       030303030303  container  none (no)    3 MiB   400 d
(no): this pikaci needs version 1 of the guest contract"""
        == shown
    )
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_an_output_shows_its_job() -> None:
    """Who made it stands for an alias; documents have the key too."""
    origin = {"owner": "me", "key": "k" * 64, "job": "4nf6ddqm.1", "name": "toolchain"}
    properties = {f"pikaci.output.{name}": value for name, value in origin.items()}
    made = image(12, properties={"pikaci.contract": "1", **properties})
    partly = image(13, properties={"pikaci.contract": "1", "pikaci.output.key": "k"})
    (row, other) = rows([made, partly])

    assert ("4nf6ddqm.1", "toolchain", "k" * 64) == (row.job, row.job_name, row.key)
    assert (None, None, None) == (other.job, other.job_name, other.key)
    lines = table([row, other], NOW).splitlines()
    assert lines[1].startswith("toolchain (4nf6ddqm.1)    121212121212")
    assert lines[2].startswith("-  ")
    assert all(len(line) <= 80 for line in lines)


def test_no_images() -> None:
    """What to type then."""
    assert "there are no images; `pikaci image build` builds one" == table([])


def test_hostile_words_steer_no_terminal() -> None:
    """Aliases and versions come from whoever made the image."""
    odd = image(
        1,
        "a\x1b[2Jb\nc",
        properties={"pikaci.contract": "\x1b]0;x\x07\n9", "pikaci.contract.minor": "\x1b"},
    )

    shown = table(rows([odd]), NOW)

    assert "\x1b" not in shown
    assert 3 == len(shown.splitlines())


def test_rows_are_for_programs() -> None:
    """Sizes in bytes, whole fingerprints, and whether this pikaci can use the image."""
    (row,) = msgspec.json.decode(msgspec.json.encode(rows([IMAGES[1]])))

    assert ("385" * 32, 385 << 20, True) == (row["fingerprint"], row["size"], row["usable"])
    assert (["pikaci/dev"], "1", 1) == (row["aliases"], row["contract"], row["contract_minor"])
