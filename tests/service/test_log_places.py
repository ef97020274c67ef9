"""Where in a log something is: the line that says what failed, and when lines came."""

from __future__ import annotations

import pytest

from orchestrator.log_times import RECORD, UNKNOWN, times_path
from orchestrator.service.api import log as api
from tests.service.served import Served, open_served

ERROR = "a.c:1:2: error: 'vat' is undeclared"


async def job_with(served: Served, log: str) -> str:
    job: str = (await served.submit("true"))["id"]
    await served.orchestrator.job(job).wait()
    (served.orchestrator.job(job).directory / "guest.log").write_text(log)
    return job


@pytest.mark.parametrize("end", ["", "\n"])
async def test_the_line_that_says_what_failed_has_a_place(end: str) -> None:
    """Also in a log of which only the end is looked at."""
    for before in (3, 5000):
        text = "".join(f"line {n}\n" for n in range(before))
        log = f"{text}{ERROR}\nmake: *** [all] Error 1{end}"
        async with open_served() as served:
            job = await job_with(served, log)
            found = await served.http.get(f"/v1/jobs/{job}/log/place?error=true")

        assert {"line": before + 1, "byte": len(text)} == found.json()


async def test_a_log_that_names_no_error_has_none() -> None:
    """Nor has an empty one, or one that does not exist."""
    async with open_served() as served:
        jobs = [await job_with(served, log) for log in ("all is well\n", "", "x")]
        (served.orchestrator.job(jobs[2]).directory / "guest.log").unlink()
        answers = [await served.http.get(f"/v1/jobs/{job}/log/place?error=true") for job in jobs]

    assert [404] * 3 == [answer.status_code for answer in answers]


async def test_times_of_a_log_are_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the record that covers the byte; what is unknown is null."""
    monkeypatch.setattr(api, "MAX_TIMES", 2)
    records = [(0, 1000), (10, 2000), (20, UNKNOWN), (30, 4000)]
    async with open_served() as served:
        job = await job_with(served, "x" * 40)
        index = times_path(served.orchestrator.job(job).directory / "guest.log")
        index.write_bytes(b"".join(RECORD.pack(*record) for record in records))

        async def times(query: str) -> object:
            return (await served.http.get(f"/v1/jobs/{job}/log/times{query}")).json()

        first, middle, last = await times(""), await times("?after=15"), await times("?after=99")
        index.write_bytes(b"garbage, of more than one record's length")
        broken = await times("")
        wrong = await served.http.get(f"/v1/jobs/{job}/log/times?after=-1")

    assert {"times": [[0, 1000], [10, 2000]], "next": 20} == first
    assert {"times": [[10, 2000], [20, None]], "next": 30} == middle
    assert {"times": [[30, 4000]], "next": None} == last
    assert {"times": [], "next": None} == broken
    assert 400 == wrong.status_code
