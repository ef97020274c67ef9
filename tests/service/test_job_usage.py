"""What a job used, over HTTP, on its page, and in the metrics."""

from __future__ import annotations

from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.service.metrics import Metrics
from orchestrator.service.web.usage import POINTS, thinned, usage_view
from orchestrator.usage_samples import parse
from states.job import Job
from states.spec import JobSpec
from states.usage import Usage
from tests.service.answers import problem
from tests.service.served import Served, open_served
from tests.service.test_metrics import figures
from tests.web.test_output_pages import page

USED = {"elapsed_ms": 8000, "cpu_ms": 12_000, "memory_peak_bytes": 3 << 30}
SAMPLES = "".join(f"{s * 2000} {s * 3000} {s << 30} 7 - -\n" for s in range(1, 4)).encode()


async def script(command: GuestCommand) -> GuestOutcome:
    if "old" in command.text:
        return GuestOutcome()
    return GuestOutcome(usage=USED, samples=SAMPLES if "long" in command.text else b"")


async def job_of(served: Served, command: str) -> str:
    job = await served.orchestrator.submit_and_wait(JobSpec(command=command))
    return job.id


async def test_its_samples_come_with_it() -> None:
    """Oldest first; none of a short job; a job of an older image has neither."""
    async with open_served(guest_script=script) as served:
        jobs = [await job_of(served, command) for command in ("long", "short", "old")]
        found = [(await served.http.get(f"/v1/jobs/{job}/usage")).json() for job in jobs]
        document = (await served.http.get(f"/v1/jobs/{jobs[0]}")).json()
        await problem(await served.http.get("/v1/jobs/nope.1/usage"), 404)

    assert [USED, USED, None] == [one["usage"] for one in found]
    assert USED == document["usage"]
    assert [2000, 4000, 6000] == [one["ms"] for one in found[0]["samples"]]
    assert {"ms": 2000, "cpu_ms": 3000, "memory_bytes": 1 << 30, "processes": 7,
            "read_bytes": None, "written_bytes": None} == found[0]["samples"][0]  # fmt: skip
    assert [[], []] == [one["samples"] for one in found[1:]]


async def test_the_page_has_a_line_and_a_graph() -> None:
    """Without scripts; a short job has the line alone, one of an older image nothing."""
    async with open_served(guest_script=script) as served:
        long, short, old = [
            await page(served, f"/jobs/{await job_of(served, command)}")
            for command in ("long", "short", "old")
        ]

    said = "CPU 12 s (1.5 of 2 CPUs), memory at most 3 GiB of 4 GiB"
    assert '<a href="#usage">Usage</a>' in long
    assert f'<h2 id="usage">Usage <span class="soft">{said}</span></h2>' in long
    assert 'aria-label="CPUs, 0 to 2; memory, 0 to 4 GiB; over 8.0 s"' in long
    assert '<polyline class="cpu" points="250.0,15.0 500.0,15.0 750.0,15.0">' in long
    assert '<polyline class="memory" points="250.0,45.0 500.0,30.0 750.0,15.0">' in long
    assert said in short and "polyline" not in short
    assert ">Usage " not in old and "#usage" not in old


async def test_histograms_count_jobs_that_say_what_they_used() -> None:
    async with open_served(guest_script=script) as served:
        metrics = Metrics(served.orchestrator)
        for command in ("long", "short", "old"):
            await job_of(served, command)
        names = ("pikaci_job_cpu_seconds", "pikaci_job_memory_peak_bytes")
        sums = [await figures(metrics, f"{name}_sum") for name in names]
        counts = [await figures(metrics, f"{name}_count") for name in names]

    assert [{(): 24.0}, {(): float(6 << 30)}] == sums
    assert [{(): 2}, {(): 2}] == counts


def test_many_samples_are_drawn_as_few() -> None:
    """Each with the most memory of those that it stands for, and the end of their time."""
    many = parse(
        b"".join(b"%d %d %d - - -\n" % (n, n, 5000 if n == 1111 else 1) for n in range(1, 4001))
    )
    few = thinned(many)

    assert POINTS >= len(few)
    assert 4000 == few[-1].ms
    assert [5000] == [one.memory_bytes for one in few if (one.memory_bytes or 0) > 1]
    assert few == thinned(few)


def test_a_hostile_guest_s_numbers_make_a_drawing_of_the_same_size() -> None:
    """However large they are."""
    huge = parse(b"1 1 9000000000000000 1 - -\n9000000000000000 9000000000000000 1 1 - -\n")
    view = usage_view(Job(usage=Usage(cpu_ms=1), spec=JobSpec(command="x")), huge)

    assert view is not None
    points = [tuple(map(float, p.split(","))) for c in view.curves for p in c.points.split(" ")]
    assert all(0 <= x <= 1000 and 0 <= y <= 60 for x, y in points)
    assert None is usage_view(Job(usage=Usage(cpu_periods=1)), huge) is usage_view(Job(), huge)
