"""Which image an alias means, in a process that lives long."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from orchestrator.image.store import KNOWN_SECS
from states.spec import InstanceType
from tests.unit.orchestrator.rig import open_rig


async def test_an_alias_is_looked_up_anew_after_a_while(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """It may have been given to a newer image."""
    async with open_rig(tmp_path) as rig:
        first = [await rig.images.find("pikaci/dev", InstanceType.CONTAINER) for _ in range(3)]
        calls = len(rig.calls)
        mock_clock.jump(KNOWN_SECS)
        again = await rig.images.find("pikaci/dev", InstanceType.CONTAINER)

    assert 1 == calls
    assert 2 == len(rig.calls)
    assert [again] * 3 == first
