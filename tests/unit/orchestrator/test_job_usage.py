"""What a job used, from its guest to what people and tools read, on the fake Incus."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio

from orchestrator.attempt.evidence import Evidence
from orchestrator.attempt.plan import make_plan
from orchestrator.cli.run_table import print_usage
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.incus import Effect, Incus
from orchestrator.report import job_document
from orchestrator.tracing.otlp import otlp
from orchestrator.tracing.perfetto import perfetto
from orchestrator.tracing.story import job_story
from orchestrator.tracing.timeline import timeline
from orchestrator.usage_samples import MAX_BYTES, read_samples, samples_path
from orchestrator.usage_words import usage_lines
from states import events as ev
from states.job import Job
from states.outcome import Verdict
from states.spec import JobSpec
from states.usage import Usage
from tests.samples import sample_remote_context
from tests.unit.orchestrator.rig import open_rig
from tests.unit.orchestrator.test_guest_result import RESULT

USED = {
    "elapsed_ms": 20_000,
    "cpu_ms": 39_200,
    "memory_peak_bytes": 222_298_112,
    "processes_peak": 38,
    "read_bytes": 1 << 20,
    "written_bytes": 3 << 20,
}
SAMPLES = b"2000 3000 1048576 7 0 0\n4000 7000 2097152 8 10 -\n"
SPEC = JobSpec(command="x", memory="16GiB")


def of(usage: object, samples: bytes = b"", code: int = 0, **files: bytes) -> object:
    async def script(command: GuestCommand) -> GuestOutcome:
        return GuestOutcome(exit_code=code, artifacts=files, usage=usage, samples=samples)

    return script


def log(job: Job) -> Path:
    assert job.artifacts is not None
    return Path(job.artifacts) / "guest.log"


async def test_what_a_job_used_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In its document, its story and on the terminal, with what its author can change."""
    async with open_rig(tmp_path, guest_script=of(USED, SAMPLES, 3)) as rig:
        job = await rig.live(SPEC)
        story = job_story(timeline(rig.entries()))

    assert (Verdict.FAILED, Usage(**USED)) == (job.verdict, job.usage)
    assert job.usage == job_document(job).usage == story.usage
    assert USED == json.loads(msgspec.json.encode(job_document(job)))["usage"]
    assert () == job.warnings
    print_usage(job)
    assert [
        "  used: CPU 39 s (2.0 of 2 CPUs), memory at most 212 MiB of 16 GiB",
        "  used: read 1 MiB, wrote 3 MiB, at most 38 processes",
        "  its 2 CPUs were busy 98 % of the time: set `cpus` in the job file to give it more",
        "  asked for 16 GiB, used 212 MiB at most: `memory` can be less",
    ] == capsys.readouterr().out.splitlines()


async def test_a_job_that_was_cancelled_says_what_it_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until then: so there is no hint that it needs less."""

    async def script(command: GuestCommand) -> GuestOutcome:
        command.count(USED)
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async with open_rig(tmp_path, guest_script=script) as rig:
        task = await rig.submit(SPEC)
        with trio.CancelScope() as scope:
            rig.journal.observe(
                lambda entry: scope.cancel() if isinstance(entry, ev.Running) else None
            )
            await task.run()
        job = rig.journal.job(task.job.id)
        story = job_story(timeline(rig.entries()))

    assert (Verdict.CANCELLED, Usage(**USED)) == (job.verdict, job.usage)
    assert job.usage == job_document(job).usage == story.usage
    print_usage(job)
    assert [
        "  used: CPU 39 s (2.0 of 2 CPUs), memory at most 212 MiB of 16 GiB",
        "  used: read 1 MiB, wrote 3 MiB, at most 38 processes",
        "  its 2 CPUs were busy 98 % of the time: set `cpus` in the job file to give it more",
    ] == capsys.readouterr().out.splitlines()


async def test_what_a_job_used_is_known_before_its_artifacts_are_there(tmp_path: Path) -> None:
    """Those of a job that was cancelled may take longer than there is time for."""
    said = {**RESULT, "nonce": "own", "status": "cancelled", "exit_code": 130, "usage": USED}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        body = json.dumps(said).encode()
        info = tarfile.TarInfo("./result.json")
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))
    arrived = trio.Event()

    class Slow:
        async def perform(self, effect: Effect, *, into: Any) -> None:
            async with into() as sink:
                await sink(data.getvalue()[:-1024])
                arrived.set()
                await trio.sleep_forever()

    evidence = Evidence(
        make_plan(SPEC, sample_remote_context()), tmp_path, cast(Incus, Slow()), "own"
    )
    evidence.log.touch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(evidence.collect, None)
        await arrived.wait()
        nursery.cancel_scope.cancel()

    assert Usage(**USED) == evidence.usage


async def test_an_older_runner_says_nothing(tmp_path: Path) -> None:
    """Then nothing is claimed, and the file of samples is its job's own."""
    async with open_rig(tmp_path, guest_script=of(None, SAMPLES)) as rig:
        job = await rig.live(SPEC)

    assert (Verdict.PASSED, None) == (job.verdict, job.usage)
    assert not samples_path(log(job)).exists()
    assert [] == usage_lines(job)


@pytest.mark.parametrize(
    "usage", ["x", [], {"cpu_ms": "much"}, {"cpu_ms": 10**30}, {"cpu_ms": -1, "elapsed_ms": 1}]
)
async def test_a_guest_that_lies_costs_its_usage(tmp_path: Path, usage: object) -> None:
    """Never its verdict, and no warning."""
    async with open_rig(tmp_path, guest_script=of(usage, SAMPLES)) as rig:
        job = await rig.live(SPEC)

    assert (Verdict.PASSED, None, ()) == (job.verdict, job.usage, job.warnings)


async def test_samples_lie_beside_the_log(tmp_path: Path) -> None:
    """Those that can be true; they are no artifact, whatever the globs match."""
    data = SAMPLES + b"\x1b]0;x\x07\n" + SAMPLES
    async with open_rig(tmp_path, guest_script=of(USED, data, report=b"x")) as rig:
        job = await rig.live(msgspec.structs.replace(SPEC, artifacts=("*",)))

    assert SAMPLES == samples_path(log(job)).read_bytes()
    assert [2000, 4000] == [one.ms for one in read_samples(log(job))]
    assert ["report"] == [path.name for path in (log(job).parent / "artifacts").iterdir()]


async def test_too_many_samples_are_refused_by_name(tmp_path: Path) -> None:
    """The runner cannot write so many."""
    async with open_rig(tmp_path, guest_script=of(USED, b"1 2\n" * MAX_BYTES)) as rig:
        job = await rig.live(SPEC)

    assert Verdict.PASSED is job.verdict
    assert ("not collected: guest.usage has more than 512 KiB",) == job.warnings
    assert () == read_samples(log(job))


async def test_perfetto_has_counter_tracks(tmp_path: Path) -> None:
    """From the time at which the command started; none without samples."""
    async with open_rig(tmp_path, guest_script=of(USED, SAMPLES)) as rig:
        job = await rig.live(SPEC)
        line = timeline(rig.entries())
    events = json.loads(perfetto([line], {job.id: read_samples(log(job))}))["traceEvents"]
    counters = [event for event in events if event["ph"] == "C"]
    running = next(event for event in events if event["name"] == "running")

    values = {(event["name"], event["ts"] - running["ts"]): event["args"] for event in counters}
    assert {
        ("r.1 job CPUs", 2_000_000): {"value": 1.5},
        ("r.1 job CPUs", 4_000_000): {"value": 2.0},
        ("r.1 job memory, bytes", 2_000_000): {"value": 1048576},
        ("r.1 job memory, bytes", 4_000_000): {"value": 2097152},
        ("r.1 job processes", 2_000_000): {"value": 7},
        ("r.1 job processes", 4_000_000): {"value": 8},
        ("r.1 job read, bytes", 2_000_000): {"value": 0},
        ("r.1 job read, bytes", 4_000_000): {"value": 10},
        ("r.1 job written, bytes", 2_000_000): {"value": 0},
    } == values
    assert b'"ph":"C"' not in perfetto([line])


async def test_otlp_has_attributes(tmp_path: Path) -> None:
    """On the span of the job."""
    async with open_rig(tmp_path, guest_script=of(USED)) as rig:
        await rig.live(SPEC)
        document = json.loads(otlp([timeline(rig.entries())]))
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    (span,) = [span for span in spans if span["name"] == "job"]

    found = {one["key"]: one["value"] for one in span["attributes"]}
    assert {"intValue": "222298112"} == found["pikaci.usage.memory_peak_bytes"]
    assert {"intValue": "39200"} == found["pikaci.usage.cpu_ms"]


@pytest.mark.parametrize(
    ("usage", "spec", "lines"),
    [
        (
            Usage(cpu_ms=500, cpu_periods=100, cpu_throttled=80),
            JobSpec(command="x"),
            [
                "used: CPU 500 ms",
                "throttled 80 % of the time: set `cpus` in the job file to give it more",
            ],
        ),
        (
            Usage(elapsed_ms=20_000, cpu_ms=20_000),
            JobSpec(command="x", cpus=1),
            [
                "used: CPU 20 s (1.0 of 1 CPU)",
                "its CPU was busy 100 % of the time: set `cpus` in the job file to give it more",
            ],
        ),
        (Usage(processes_peak=1), None, ["used: at most 1 process"]),
        (Usage(memory_peak_bytes=5), None, ["used: memory at most 5 B"]),
        (Usage(cpu_periods=3), JobSpec(command="x"), []),
    ],
)
def test_only_what_is_known_is_told(usage: Usage, spec: JobSpec | None, lines: list[str]) -> None:
    assert lines == usage_lines(Job(usage=usage, spec=spec))
