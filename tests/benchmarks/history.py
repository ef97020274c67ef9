"""What questions about many jobs cost, and finding the reason in a log.

    python -m tests.benchmarks.history [JOBS]

Fills a journal with jobs of twenty names, of which every seventh failed and some are flaky, and asks what
`pikaci history`, `flakes` and `status` ask. Then the same journal is given identities as a migration
does. Needs no Incus.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import trio

from orchestrator.history import job_history
from orchestrator.journal import Journal, open_journal
from orchestrator.journal.file import connect, transaction
from orchestrator.journal.identities import note_identities
from orchestrator.log_end import read_log_end
from states import events as ev
from states.log_reasons import MAX_LINES, find_reason
from states.outcome import Outcome
from states.testcases import Case, CaseOutcome
from tests.reasons.record import TOOLS
from tests.samples import sample_life

JOBS = 2_000
NAMES = 20
TESTS = 20  # of a job
BATCH = 200  # jobs that share a commit
ROUNDS = 3


def life(number: int) -> tuple[list[Any], list[Case]]:
    """The events and the tests of a job; each snapshot is seen by three jobs of a name."""
    job, fails = f"r{number}.1", number % 7 == 3
    snapshot = ev.SnapshotRef(hash=f"tree-{number // (3 * NAMES)}", commit=f"{number // 60:040}")
    events = []
    for event in sample_life():
        changes: dict[str, Any] = {"job": job}
        if isinstance(event, ev.Submitted):
            changes |= {"run": f"r{number}", "name": f"job-{number % NAMES}", "snapshot": snapshot}
        if isinstance(event, ev.ResultCollected) and fails:
            changes |= {"outcome": Outcome.FAILED, "exit_code": 1}
        events.append(msgspec.structs.replace(event, **changes))
    bad = CaseOutcome.FAILED if fails else CaseOutcome.PASSED
    cases = [Case(name=f"test_{n}", outcome=CaseOutcome.PASSED) for n in range(TESTS - 1)]
    return events, [*cases, Case(name="test_flaky", outcome=bad)]


async def fill(journal: Journal, jobs: int) -> None:
    for first in range(0, jobs, BATCH):
        async with trio.open_nursery() as nursery:
            for number in range(first, min(jobs, first + BATCH)):
                events, cases = life(number)

                async def append(events: list[Any] = events, cases: list[Case] = cases) -> None:
                    await journal.append(*events, cases=cases)

                nursery.start_soon(append)


def best(what: str, ask: Callable[[], object]) -> None:
    """Print the fastest of some rounds."""
    secs = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        ask()
        secs.append(time.perf_counter() - begin)
    print(f"{what:40} {1000 * min(secs):8.2f} ms")


def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pikaci-history-") as name:
        path = Path(name) / "journal"
        with open_journal(path) as journal:
            trio.run(fill, journal, jobs)
            rows = journal.results("job-3", "/src", limit=100)
            flaky = journal.flaky_jobs(limit=20)
            print(f"{jobs} jobs, {jobs * TESTS} tests, {len(flaky)} flakes listed")
            best(
                "history: 100 results of a job",
                lambda: job_history(journal.results("job-3", "/src", limit=100), None),
            )
            best("history: the tests of two jobs", lambda: journal.case_outcomes(rows[0].id))
            best("trace diff: the last that passed", lambda: journal.last_passed(rows[0]))
            best("status: is a job flaky", lambda: journal.flake(rows[0].identity, "failed"))
            best("flakes: the newest 20", lambda: journal.flaky_jobs(limit=20))
            if flaky:
                best(
                    "flakes: the tests of one",
                    lambda: journal.flaky_tests(flaky[0].identity, limit=20),
                )

        def migrate() -> None:
            with closing(connect(path)) as connection, transaction(connection):
                note_identities(connection)

        best("identities of all jobs (migration)", migrate)
    logs = [read_log_end(log, lines=MAX_LINES).lines for log in TOOLS.glob("*.log")]
    best(f"the reasons in {len(logs)} logs of real tools", lambda: [*map(find_reason, logs)])
    best("the reason in a log of 2,000 lines", lambda: find_reason(["error: x y z"] * 2000))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else JOBS)
