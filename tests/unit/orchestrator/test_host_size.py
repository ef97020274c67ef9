"""Specs that ask for more than the host has, on the fake Incus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from orchestrator import JobSpec, Orchestrator, Request, SpecError, Verdict
from orchestrator.fake_incus import FakeIncus
from orchestrator.fake_incus.model import Machine
from orchestrator.incus import Completed, Host, Incus
from orchestrator.job.host_size import KNOWN_SECS, UNKNOWN_SECS, HostSizes
from orchestrator.job.submission import judge
from orchestrator.testing import open_fake

GIB = 1 << 30
DEFAULT = JobSpec(command="true")


def make_small(fake: FakeIncus) -> None:
    """One processor, 2 GiB of memory, a pool of 3.5 GiB."""
    fake.store.machine = Machine(cpus=1, memory_bytes=2 * GIB)
    fake.store.pools["pikaci"].total_bytes = 3 * GIB + GIB // 2


def request_of(orchestrator: Orchestrator, **specs: JobSpec) -> Request:
    return Request(orchestrator.root.path.parent / "workspace", specs)


@pytest.mark.parametrize(
    ("asked", "words", "allowed"),
    [
        ({"cpus": 3}, "cpus 3 of the job job is too much: the host local has 1 p", "`cpus = 1`"),
        (
            {"memory": "900GiB"},
            "900GiB of the job job is too much: the host local has 2 GiB",
            '= "2GiB"`',
        ),
        (
            {"disk": "4GiB"},
            "4GiB of the job job is too much: the storage pool pikaci has 3.5 GiB",
            '"3584MiB"`',
        ),
    ],
)
async def test_more_than_the_host_has_is_refused(
    asked: dict[str, Any], words: str, allowed: str
) -> None:
    """With what to write, and no job."""
    async with open_fake() as (orchestrator, fake):
        make_small(fake)
        with pytest.raises(SpecError) as error:
            await orchestrator.submit(JobSpec(command="true", **asked))

        assert words in str(error.value)
        assert allowed in error.value.resolution
        assert [] == orchestrator.journal.jobs()
        assert {} == fake.instances()


async def test_a_default_is_lowered_to_what_there_is_and_a_run_told_once() -> None:
    """What a job says itself, and fits, stays."""
    async with open_fake() as (orchestrator, fake):
        make_small(fake)
        own = JobSpec(command="true", memory="1GiB", disk="1GiB", cpus=1)
        run = await orchestrator.submit_run(
            request_of(orchestrator, own=own, first=DEFAULT, second=DEFAULT)
        )
        jobs = await run.wait()
        warnings = {job.name: orchestrator.journal.job(job.id).warnings for job in jobs}

    sizes = [(job.spec.cpus, job.spec.memory, job.spec.disk) for job in jobs if job.spec]
    assert [(1, "1GiB", "1GiB"), *[(1, "2GiB", "3584MiB")] * 2] == sizes
    assert [Verdict.PASSED] * 3 == [job.verdict for job in jobs]
    told = (
        "the host local has 1 processor: the default cpus is 1, not 2",
        "the host local has 2 GiB of memory: the default memory is 2GiB, not 4GiB",
        "the storage pool pikaci has 3.5 GiB: the default disk is 3584MiB, not 10GiB",
    )
    assert {"own": (), "first": told, "second": ()} == warnings


async def test_a_cluster_is_not_measured_by_the_member_that_answers() -> None:
    """Another member may have the room."""
    async with open_fake() as (orchestrator, fake):
        make_small(fake)
        fake.store.machine.clustered = True
        job = await orchestrator.submit_and_wait(JobSpec(command="true", memory="900GiB"))

    assert (Verdict.PASSED, ()) == (job.verdict, job.warnings)


async def test_a_host_that_may_not_be_asked_checks_nothing(tmp_path: Path) -> None:
    """As with a certificate that is restricted to a project."""
    async with FakeIncus.open() as fake:
        make_small(fake)

        async def spawn(argv: Sequence[str], **options: Any) -> Completed:
            if "/resources" in argv[-1]:
                return Completed(tuple(argv), 1, b"", b"Error: User does not have permission\n")
            return await fake(argv, **options)

        sizes = HostSizes(Incus(tmp_path / "conf", spawn=spawn), Host())
        judged = judge(Request(tmp_path, {"job": JobSpec(command="true", disk="900GiB")}))

        assert (judged, {}) == await sizes.fit(judged)


async def test_one_lost_answer_lets_too_much_in_for_moments_only(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A service would take jobs that cannot run for as long as it believes that it knows."""
    lost = True
    async with FakeIncus.open() as fake:
        make_small(fake)

        async def spawn(argv: Sequence[str], **options: Any) -> Completed:
            if lost and "/resources" in argv[-1]:
                return Completed(tuple(argv), 1, b"", b"Error: Get: unexpected EOF\n")
            return await fake(argv, **options)

        sizes = HostSizes(Incus(tmp_path / "conf", spawn=spawn), Host())
        judged = judge(Request(tmp_path, {"job": JobSpec(command="true", disk="900GiB")}))
        assert (judged, {}) == await sizes.fit(judged)
        lost = False
        autojump_clock.jump(UNKNOWN_SECS)

        with pytest.raises(SpecError):
            await sizes.fit(judged)


async def test_a_host_is_asked_once_and_again_before_it_refuses(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A pool that was enlarged meanwhile has room at once."""
    asked: list[str] = []
    async with FakeIncus.open() as fake:
        make_small(fake)
        observed = Incus(
            tmp_path / "conf", spawn=fake, observe=lambda call: asked.append(call.argv[-1])
        )
        sizes = HostSizes(observed, Host())
        small = JobSpec(command="true", cpus=1, memory="1GiB", disk="1GiB")
        fits = judge(Request(tmp_path, {"job": small}))
        large = judge(Request(tmp_path, {"job": msgspec.structs.replace(small, disk="40GiB")}))
        for _ in range(3):
            await sizes.fit(fits)
        await HostSizes(observed, Host()).fit(fits)  # another process
        once = len(asked)
        await HostSizes(observed, Host(pool="other")).fit(fits)
        of_another = asked[once:]
        del asked[once:]
        fake.store.pools["pikaci"].total_bytes = 50 * GIB

        assert {
            "local:/1.0/resources?project=pikaci",
            "local:/1.0/storage-pools/other/resources?project=pikaci",
        } == set(of_another)
        assert (large, {}) == await sizes.fit(large)
        assert (2, 4) == (once, len(asked))
        autojump_clock.jump(KNOWN_SECS)
        await sizes.fit(fits)
        assert 6 == len(asked)
