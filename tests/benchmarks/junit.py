"""What a job's test report costs: reading it, and writing its tests into the journal.

    python -m tests.benchmarks.junit [TESTS]

Reads a report as pytest writes it, one test in a hundred failed, and appends the tests as a job's
result does. Needs no Incus.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import trio

from orchestrator.attempt.junit import read_reports
from orchestrator.journal import open_journal
from states import events as ev
from states.testcases import case_report
from tests.samples import sample_event

TESTS = 10_000
ROUNDS = 5
CASE = '<testcase classname="tests.unit.test_module_{0}" name="test_{0}[a-b]" time="0.0{0}">{1}</testcase>'
FAILURE = '<failure message="assert 1 == 2">{}</failure>'.format("E   assert 1 == 2\n" * 30)


async def main(tests: int) -> None:
    """Measure, and print the best of some rounds."""
    body = "".join(CASE.format(n, "" if n % 100 else FAILURE) for n in range(tests))
    with tempfile.TemporaryDirectory(prefix="pikaci-junit-") as name:
        place = Path(name)
        (place / "junit.xml").write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
        size = (place / "junit.xml").stat().st_size
        read, written = [], []
        with open_journal(place / "journal") as journal:
            for number in range(ROUNDS):
                begin = time.perf_counter()
                cases = read_reports(place, ["junit.xml"], []).cases
                case_report(cases)
                read.append(time.perf_counter() - begin)
                before = journal.position()
                begin = time.perf_counter()
                event = sample_event(ev.Submitted, 1, job=f"r.{number}")
                await journal.append(event, cases=cases)
                written.append(time.perf_counter() - begin)
                assert journal.position() > before
                assert len(journal.cases(f"r.{number}")) == tests
        per_job = sum(path.stat().st_size for path in place.glob("journal*")) / ROUNDS
    print(f"{tests} tests, a report of {size / 2**20:.1f} MiB")
    print(f"read in {min(read) * 1000:.0f} ms, written in {min(written) * 1000:.0f} ms")
    print(f"{per_job / 2**20:.2f} MiB of the journal for a job")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else TESTS)
