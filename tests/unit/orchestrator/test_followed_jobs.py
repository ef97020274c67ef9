"""Whoever follows a job has all of its events and of its log, from where it likes."""

from __future__ import annotations

from orchestrator.testing import open_fake
from tests.unit.orchestrator.submitted import PASSES


async def test_events_come_from_the_first_to_the_last_whenever_one_asks() -> None:
    """Also after the job has ended; each once, in order."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        live = [event.seq async for event in job.events()]
        again = [event.seq async for event in job.events()]

    assert [1, 2, 3, 4, 5, 6] == live == again


async def test_a_slow_reader_loses_nothing_and_blocks_nobody() -> None:
    """It is still at the first event when the job has ended."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        events = job.events()
        first = await anext(events)
        await job.wait()
        rest = [event.seq async for event in events]

    assert 1 == first.seq
    assert [2, 3, 4, 5, 6] == rest


async def test_entries_go_on_where_a_reader_left_off() -> None:
    """By their numbers in the journal; behind the last, the stream of an ended job is over."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        while orchestrator.drives(job.id):  # notes of its instance's end come behind its own
            await orchestrator.arrivals.entry(job.id).wait()
        numbers = [number async for number, _ in job.entries()]
        later = [number async for number, _ in job.entries(after=numbers[3])]
        none = [number async for number, _ in job.entries(after=numbers[-1] + 1000)]

    assert sorted(numbers) == numbers
    assert numbers[4:] == later
    assert [] == none


async def test_a_log_is_followed_to_its_end() -> None:
    """From any byte."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        whole = b"".join([chunk async for chunk in job.log()])
        tail = b"".join([chunk async for chunk in job.log(after=len(whole) - 4)])

    assert b"one\ntwo\n" == whole.split(b"\n", 1)[1]
    assert b"two\n" == tail
