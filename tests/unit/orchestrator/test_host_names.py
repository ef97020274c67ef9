"""Specs that name an image or a network which the host does not have, on the fake Incus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from orchestrator import JobSpec, Request, SpecError, Verdict
from orchestrator.contract import how_to_rebuild
from orchestrator.fake_incus import FakeIncus
from orchestrator.image.store import KNOWN_SECS, Images
from orchestrator.incus import Call, Completed, Incus
from orchestrator.job.host_names import check_host_names
from orchestrator.testing import open_fake
from states.errors import SpecErrors
from states.outcome import FailureKind
from states.spec import InstanceType
from tests.unit.orchestrator.test_host_size import request_of
from tests.unit.orchestrator.workspaces import commit_all


@pytest.mark.parametrize(
    ("asked", "words", "allowed"),
    [
        (
            {"image": "pikaci/devv"},
            "image of the job job: there is no image pikaci/devv in project pikaci of local:"
            " did you mean `pikaci/dev`?",
            "(pikaci/dev)",
        ),
        ({"image": "zzz"}, "there is no image zzz in project pikaci of local", "(pikaci/dev)"),
        ({"network": "incusbr1"}, "no network incusbr1 on local: did you mean `incusbr0`?", "none"),
        ({"network": "lo"}, "network of the job job: there is no network lo on local", "incusbr0"),
        (
            {"instance_type": InstanceType.VIRTUAL_MACHINE},
            "instance_type of the job job: the image pikaci/dev in project pikaci of local is of",
            'instance_type = "container"',
        ),
    ],
)
async def test_what_is_not_there_is_refused(
    asked: dict[str, Any], words: str, allowed: str
) -> None:
    """With the nearest name, or all; no job, no instance."""
    async with open_fake() as (orchestrator, fake):
        fake.store.networks.append("incusbr0")
        with pytest.raises(SpecError) as error:
            await orchestrator.submit(JobSpec(command="true", **asked))

        assert words in str(error.value)
        assert allowed in error.value.resolution
        assert [] == orchestrator.journal.jobs()
        assert {} == fake.instances()


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("egress", {"egress": ("*",)}),
        ("output", {"output": "/venv"}),
        ("snapshot.git", {}),
    ],
)
async def test_an_image_that_is_too_old_is_refused(
    tmp_path: Path, key: str, asked: dict[str, Any]
) -> None:
    """Only for jobs that need what its guests lack; nothing is begun, and a line says what to do."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "file").touch()
    commit_all(workspace)
    spec = JobSpec(command="true", **asked)
    async with open_fake() as (orchestrator, fake):
        (image,) = fake.store.projects["pikaci"].images.values()
        image.properties["pikaci.contract.minor"] = "1"
        request = Request(workspace, {"job": spec, "more": spec}, git=key == "snapshot.git")
        with pytest.raises(SpecError, match=r"keeps guest contract 1.1, and .* needs 1.2") as error:
            await orchestrator.submit_run(request)
        assert [] == orchestrator.journal.jobs()
        parts = {"output": "/artifacts/out", "sources": ()}
        fits = Request(workspace, {"job": JobSpec(command="write", **parts)}, git=request.git)
        handle = await orchestrator.submit_run(fits)
        await handle.wait()

        assert key == error.value.key
        assert "`pikaci image build` rebuilds pikaci/dev" == error.value.resolution


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ("pikaci/systemd", "`pikaci image build --systemd` rebuilds pikaci/systemd"),
        ("pikaci/vm", "`pikaci image build --vm` rebuilds pikaci/vm"),
        ("pikaci/nixos-vm", "`pikaci image build --nixos vm` rebuilds pikaci/nixos-vm"),
        ("my/own", "rebuild my/own the way it was built"),
    ],
)
def test_the_command_that_rebuilds_an_image_is_named(alias: str, words: str) -> None:
    """For those that pikaci names by itself."""
    assert words in how_to_rebuild(alias)


async def test_a_host_that_goes_out_by_socks_has_no_way_out_for_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Said before anything is submitted, without the password."""
    monkeypatch.setenv("all_proxy", "socks5://me:secret@p.example:1080")
    async with open_fake() as (orchestrator, _):
        with pytest.raises(SpecError, match="not the address of an HTTP proxy") as error:
            await orchestrator.submit(JobSpec(command="true", egress=("*",)))
        assert "secret" not in error.value.line()
        assert [] == orchestrator.journal.jobs()


async def test_a_run_is_refused_with_all_that_is_not_there() -> None:
    """Each name once, with the first job that has it; the other jobs do not begin either."""
    async with open_fake() as (orchestrator, _):
        specs = {
            "good": JobSpec(command="true"),
            "one": JobSpec(command="true", image="gone"),
            "two": JobSpec(command="true", image="gone", network="gone"),
        }
        with pytest.raises(SpecErrors) as error:
            await orchestrator.submit_run(request_of(orchestrator, **specs))

        assert ["image", "network"] == [wrong.key for wrong in error.value.mistakes]
        assert ["of the job one", "of the job two"] == [
            wrong.brief.partition(":")[0] for wrong in error.value.mistakes
        ]
        assert [] == orchestrator.journal.jobs()


async def test_a_network_that_is_there_is_used() -> None:
    """The door is no stricter than Incus."""
    async with open_fake() as (orchestrator, fake):
        fake.store.networks.append("incusbr0")
        job = await orchestrator.submit_and_wait(JobSpec(command="true", network="incusbr0"))

    assert Verdict.PASSED == job.verdict


@pytest.mark.parametrize("what", ["image", "network"])
async def test_what_is_removed_later_is_an_infrastructure_fault(
    what: str, autojump_clock: MockClock
) -> None:
    """It was there when the job was submitted: nobody's spec is wrong."""
    async with open_fake() as (orchestrator, fake):
        fake.store.networks.append("incusbr0")
        first = await orchestrator.submit(JobSpec(command=f"sleep {2 * KNOWN_SECS:g}", cpus=2))
        assert not first.ended
        job = await orchestrator.submit(JobSpec(command="true", network="incusbr0", retries=0))
        if what == "image":
            fake.store.images("pikaci").clear()
        else:
            fake.store.networks.clear()
        ended = await job.wait()

    assert ended.failure is not None
    assert FailureKind.INFRASTRUCTURE == ended.failure.kind


async def test_one_query_tells_of_any_number_of_names(tmp_path: Path) -> None:
    """A submission with thousands of them must not occupy the daemon."""
    calls: list[Call] = []
    async with FakeIncus.open() as fake:
        images = Images(Incus(tmp_path / "conf", spawn=fake, observe=calls.append))
        specs = {
            f"j{n}": JobSpec(command="true", image=f"no-{n}", network=f"n{n}") for n in range(500)
        }
        with pytest.raises(SpecErrors, match="1000 mistakes"):
            await check_host_names(images, specs)

    assert ["images", "images", "networks"] == [
        call.argv[-1].partition("/1.0/")[2].partition("?")[0] for call in calls
    ]


@pytest.mark.parametrize("answer", [b"Error: not authorized\n", b"Error: Project not found\n"])
async def test_a_host_that_does_not_tell_refuses_nothing(tmp_path: Path, answer: bytes) -> None:
    """What is wrong with it is a fault of the host, which the jobs then report."""

    async def spawn(argv: Sequence[str], **options: Any) -> Completed:
        return Completed(tuple(argv), 1, b"", answer)

    images = Images(Incus(tmp_path / "conf", spawn=spawn))

    await check_host_names(images, {"a": JobSpec(command="true", image="no", network="no")})
