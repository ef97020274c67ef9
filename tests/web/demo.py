"""A service with a day of history: runs with every verdict, a long log, running and queued jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import trio

from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from states import events as ev
from states.outcome import Failure, FailureKind, Outcome
from states.spec import JobSpec
from tests.samples import leave_artifacts
from tests.web.site import Site

COMMIT = "8f3c1d2ab47e90561c0f5a7be2d9431877a6c0de"
NO_BLOCK = (
    "incus create failed: Failed creating instance from image: Failed to create volume: no space"
    " left on device\n$ incus create --quiet --no-profiles local:5f0ab21c pikaci-5d1e7ab094c3\n"
    "exit code 1\nError: Failed instance creation: Failed creating instance record: write"
    " /var/lib/incus/storage-pools/pikaci/images/5f0ab21c: no space left on device"
)
# What a job did: (name, state to reach last, seconds, the last event's fields).
_PASSED = {"outcome": Outcome.PASSED, "exit_code": 0, "message": "test passed"}
_FAILED = {
    "outcome": Outcome.FAILED,
    "exit_code": 101,
    "message": "test command exited with 101",
    "reason": "assertion `left == right` failed: a quoted comma is no separator",
    "hint": "the workspace is read-only: `scratch = true` gives the job a writable copy of it",
}
_SLOW = {
    "outcome": Outcome.TIMED_OUT,
    "exit_code": 124,
    "message": "test command timed out after 600s",
}
_BEFORE = ((ev.ArtifactsReset, 0.02), (ev.DevicesConfigured, 0.9), (ev.InstanceReady, 1.4))
_RUNS: tuple[tuple[float, tuple[tuple[str, float, type[ev.Event], dict[str, Any]], ...]], ...] = (
    (3, (("lint", 21, ev.ResultCollected, _PASSED), ("unit", 96, ev.ResultCollected, _FAILED),
         ("docs", 14, ev.ResultCollected, _PASSED), ("build-linux", 148, ev.ResultCollected, _PASSED))),
    (22, (("lint", 20, ev.ResultCollected, _PASSED), ("unit", 131, ev.ResultCollected, _PASSED),
          ("docs", 15, ev.ResultCollected, _PASSED), ("build-linux", 143, ev.ResultCollected, _PASSED))),
    (48, (("integration", 600, ev.ResultCollected, _SLOW),)),
    (71, (("nightly-soak", 244, ev.Cancelled, {"failure": Failure(kind=FailureKind.CANCELLED,
          phase="running", message="cancelled: interrupted")}),)),
    (95, (("build-linux", 1, ev.Failed, {"failure": Failure(kind=FailureKind.INFRASTRUCTURE,
          phase="artifacts_reset", message=NO_BLOCK,
          resolution="`incus storage info pikaci` shows the pool; `pikaci gc` makes room")}),
          ("lint", 22, ev.ResultCollected, _PASSED))),
    (140, tuple((f"matrix/py3.{minor}-{system}", 40 + 3 * minor, ev.ResultCollected, _PASSED)
                for minor in range(11, 15) for system in ("debian", "nixos", "alpine"))),
    (260, (("lint", 19, ev.ResultCollected, _PASSED),)),
)  # fmt: skip


def colours(lines: int = 2000) -> bytes:
    """A coloured test log in which one test fails."""
    crates = [f"\x1b[1m\x1b[32m   Compiling\x1b[0m part-{n} v0.{n % 7}.{n % 5}" for n in range(120)]
    bar = "\r".join(f"\x1b[36mBuilding\x1b[0m [{'=' * n:<20}] {5 * n} %" for n in range(21))
    tests = [
        f"test parse::case_{n:04} ... \x1b[32mok\x1b[0m" if n != lines - 190 else
        f"test parse::case_{n:04} ... \x1b[31mFAILED\x1b[0m"
        for n in range(lines - 180)
    ]  # fmt: skip
    end = [
        "",
        "failures:",
        "",
        f"---- parse::case_{lines - 190:04} stdout ----",
        "thread 'parse' panicked at src/parse.rs:118:9:",
        "\x1b[1massertion `left == right` failed\x1b[0m: a quoted comma is no separator",
        '  left: \x1b[31m["a", "b\\"", "c"]\x1b[0m',
        ' right: \x1b[32m["a", "b,c"]\x1b[0m',
        "\x1b[2mnote: run with BACKTRACE=1 to see where it came from\x1b[0m",
        "",
        f"test result: \x1b[31mFAILED\x1b[0m. {lines - 181} passed; 1 failed; finished in 94.12s",
        "",
        "\x1b[1m\x1b[38;5;9merror\x1b[0m\x1b[1m: test failed, to rerun pass `-p parse`\x1b[0m",
        "make: *** [Makefile:14: test] Error 101",
    ]
    warn = [
        "\x1b[33mwarning\x1b[0m: unused variable: `\x1b[1mrest\x1b[0m`",
        " \x1b[38;5;12m-->\x1b[0m src/lex.rs:41:13",
    ]
    head = ["[pikaci] incus guest booted at 2026-11-25T09:14:07+00:00", "+ make test"]
    return "\n".join([*head, *crates, bar, *warn, *tests, *end, ""]).encode()


async def talkative(command: GuestCommand) -> GuestOutcome:
    """A running job: it prints now and then, and does not end."""
    for number in count(1):
        command.print(f"\x1b[2m{number:5}\x1b[0m step {number} of {command.text}\n".encode())
        await trio.sleep(2)
    raise AssertionError


def fill(site: Site, now: datetime | None = None) -> dict[str, str]:
    """Fill a site whose guest script is `talkative`; `{job's name: its id}` of the newest runs."""
    now = now or datetime.now(UTC)
    found: dict[str, str] = {}
    for index, (minutes, jobs) in reversed(list(enumerate(_RUNS))):
        run = f"k{'abcdefghjk'[index]}x7m2{index}p"
        submitted = now - timedelta(minutes=minutes)
        lives = [
            _life(f"{run}.{number}", run, name, submitted, secs, last, fields)
            for number, (name, secs, last, fields) in enumerate(jobs, start=1)
        ]
        # All are submitted together; the rest of each comes after.
        site.run(site.orchestrator.journal.append, *(life[0] for life in lives))
        for life in lives:
            site.run(site.orchestrator.journal.append, *life[1:])
            _leave(site, life, minutes == 3)
            found[life[0].name] = life[0].job
    rejected = JobSpec(command="make release", writable_workspace=True)
    site.submit_specs({"release": rejected})
    names = ("unit", "integration", "build-linux", "soak", "lint", "docs", "context")
    ids = site.submit_specs({name: JobSpec(command=f"make {name}") for name in names})
    for job in ids[: site.orchestrator.queue.capacity.jobs]:
        site.run(_started, site, job)
    found["running"] = ids[0]
    return found


async def _started(site: Site, job: str) -> None:
    async for event in site.orchestrator.job(job).events():
        if isinstance(event, ev.Running):
            return


def _life(
    job: str,
    run: str,
    name: str,
    submitted: datetime,
    secs: float,
    last: type[ev.Event],
    fields: dict[str, Any],
) -> list[Any]:
    moment, seq = 0.4, 1
    entries: list[Any] = []

    def add(kind: type[Any], **more: Any) -> None:
        nonlocal seq
        times = {"at": submitted + timedelta(seconds=moment), "monotonic": moment}
        if issubclass(kind, ev.Event):
            more["seq"] = seq
            seq += 1
        entries.append(kind(job=job, **times, **more))

    spec = JobSpec(command=f"make {name}", artifacts=("junit.xml", "reports/**"), memory="2GiB")
    add(
        ev.Submitted,
        run=run,
        name=name,
        spec=spec,
        workspace="/home/ci/project",
        snapshot=ev.SnapshotRef(
            hash="7d" * 32,
            commit=COMMIT,
            dirty=job.endswith("p.3"),
            subject="Parse quoted commas",
            branch="topic/csv",
        ),
        needs={"lint": f"{run}.1"} if name in ("unit", "docs") else {},
        contract=1,
    )
    for kind, wait in _BEFORE:
        moment += wait
        more: dict[str, Any] = {}
        if kind is ev.ArtifactsReset:
            more = {"artifacts": f"/home/ci/state/jobs/{job}/attempt-1"}
        elif kind is ev.DevicesConfigured:
            more = {
                "instance": "pikaci-5d1e7ab094c3",
                "image": ev.ImageRef(alias="pikaci/dev", fingerprint="5f0ab21c" * 8),
            }
        if last is ev.Failed and kind is ev.DevicesConfigured:
            break
        if kind is not ev.ArtifactsReset:
            verb = "create" if kind is ev.DevicesConfigured else "start"
            add(
                ev.Called,
                v=2,
                argv=("incus", verb, "--quiet", "local:pikaci-5d1e7ab094c3"),
                duration_ms=wait * 950,
                exit_code=0,
            )
        add(kind, **more)
    if last is not ev.Failed:
        moment += 0.1
        add(ev.Running)
    moment += secs
    if last is ev.Cancelled:
        add(ev.CancelRequested, reason="interrupted")
        moment += 2.2
    add(last, **fields)
    return entries


def _leave(site: Site, life: list[Any], newest: bool) -> None:
    first, last = life[0], life[-1]
    there = site.orchestrator.root.attempt_dir(first.job, 1)
    there.mkdir(parents=True)
    failed = isinstance(last, ev.ResultCollected) and last.outcome is Outcome.FAILED
    if not isinstance(last, ev.Failed):
        text = colours() if failed else b"[pikaci] incus guest booted\n+ make\nall is well\n"
        (there / "guest.log").write_bytes(text)
    if failed and newest:
        report, coverage = b"x" * 183_422, b"x" * 2_481_000
        leave_artifacts(there, {"junit.xml": report, "reports/coverage.html": coverage})
