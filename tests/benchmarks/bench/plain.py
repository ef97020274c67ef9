"""The job by plain commands of Incus, and by its API.

All mount the same four directories, and all use the image's runner, which prints the job's log and
leaves its result. What a side does not do, it says.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from orchestrator import JobSpec
from orchestrator.attempt import effects
from orchestrator.attempt.plan import Plan, PlanContext, lease_secs, make_plan
from orchestrator.contract import contract
from orchestrator.incus import Host
from orchestrator.incus.effect import SILENT_TRIES
from states.spec import Mount

IMAGE, PROJECT = "pikaci/dev", "pikaci"
SOCKET = "/var/lib/incus/unix.socket"
COMMAND, OUTPUT = "echo first", b"first"
BENCH_KEY = "user.pikaci.bench"
FIRST_BYTE, VERDICT, GONE = "first byte", "verdict", "gone"
# What every side but pikaci's leaves out.
ALL = "leases, journal, retries, artifacts, the check for other guests with the same ids"
# People's scripts ask for less, and too early.
WAITS = "but it waits for the image's runner, not only until `true` runs"

Moments = dict[str, float]  # seconds since the job was submitted


class Lost(Exception):
    """A job without a verdict: a busy Incus may lose what a short exec prints, again and again."""


def spec_of(base: Path) -> JobSpec:
    """The job, with three directories besides the snapshot."""
    for name in ("workspace", "a", "b", "c"):
        (base / name).mkdir(exist_ok=True)
    mounts = (Mount(source=str(base / name), path=f"/mnt/{name}") for name in "abc")
    return JobSpec(command=COMMAND, image=IMAGE, mounts=tuple(mounts))


class Job:
    """The job as plain commands run it: its instance, and what has been seen of it."""

    def __init__(self, spec: JobSpec, base: Path, fingerprint: str, name: str) -> None:
        ends = datetime.now(UTC) + timedelta(seconds=lease_secs(spec))
        context = PlanContext(
            host=Host(),
            owner="benchmark",
            run="r",
            job=name,
            name="job",
            attempt=1,
            snapshot=str(base / "workspace"),
            commit="",
            fingerprint=fingerprint,
            lease_ends=ends,
        )
        self.base = base
        self.plan: Plan = make_plan(spec, context)
        self.name = f"local:{self.plan.instance}"
        self.nonce = secrets.token_hex(8)
        self.moments: Moments = {}
        self._began = time.monotonic()

    def reached(self, moment: str) -> None:
        self.moments.setdefault(moment, time.monotonic() - self._began)

    @property
    def stdin(self) -> bytes:
        return effects.runner_stdin(self.plan, self.nonce, {}, lease_secs=600)

    @property
    def document(self) -> bytes:
        return effects.create_document(self.plan)

    @property
    def runner(self) -> tuple[str, ...]:
        names = contract().variables
        pairs = {names.command: COMMAND, names.timeout_secs: "60", names.run_as_root: "0"}
        return ("env", *(f"{key}={value}" for key, value in pairs.items()), contract().runner)

    def incus(self, verb: str, *words: str, stdin: bytes = b"", may_fail: bool = False) -> bytes:
        argv = ["incus", verb, "--project", PROJECT, *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, check=not may_fail)
        return done.stdout

    def exec(self, *argv: str) -> bytes:
        """Run the runner in the guest, with its stdin; notes when the command's output comes."""
        words = ["exec", "--project", PROJECT, "--force-noninteractive", self.name, "--", *argv]
        with subprocess.Popen(
            ["incus", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(self.stdin)
            client.stdin.close()
            said = b""
            while OUTPUT not in said and (more := client.stdout.read1()):  # after the runner's own
                said += more
            self.reached(FIRST_BYTE)
            return said + client.stdout.read()

    def judged(self, result: bytes) -> None:
        """Note the verdict, if this is the job's result; else look for it, as a person would."""
        for _ in range(SILENT_TRIES):
            if self.nonce.encode() in result:
                break
            result = self.incus("exec", self.name, "--", "cat", contract().result, may_fail=True)
        if self.nonce.encode() not in result:
            raise Lost(f"{self.name}: the result is {result!r}")
        self.reached(VERDICT)

    def deleted(self) -> Moments:
        self.incus("delete", "--quiet", "--force", self.name, may_fail=True)
        self.reached(GONE)
        return self.moments


# A guest makes its runner while it boots.
READY = f"until [ -x {contract().runner} ]; do sleep 0.02; done"


def seed(job: Job) -> Moments:
    job.incus("delete", "--quiet", "--force", job.name, may_fail=True)
    root = job.plan.devices["root"]
    document = {"config": job.plan.config, "devices": {"root": root}}
    image = f"local:{job.plan.fingerprint}"
    words = ("--quiet", "--no-profiles", image, job.name)
    job.incus("create", *words, stdin=json.dumps(document).encode())
    for device, keys in job.plan.devices.items():
        if device != "root":
            pairs = [f"{key}={value}" for key, value in keys.items() if key != "type"]
            job.incus("config", "device", "add", job.name, device, "disk", *pairs)
    job.incus("start", "--quiet", job.name)
    job.incus("exec", job.name, "--", "sh", "-c", READY)
    job.exec(*job.runner)
    result = job.incus("file", "pull", "--quiet", f"{job.name}{contract().result}", "-")
    job.judged(result)
    for _ in range(2):
        job.incus("file", "pull", "--quiet", f"{job.name}{contract().log}", "-")
    return job.deleted()


def six(job: Job) -> Moments:
    words = ("--quiet", "--no-profiles", f"local:{job.plan.fingerprint}", job.name)
    job.incus("create", *words, stdin=job.document)
    job.incus("start", "--quiet", job.name)
    job.incus("exec", job.name, "--", "sh", "-c", READY)
    job.exec(*job.runner)
    job.judged(job.incus("exec", job.name, "--", "cat", contract().result))
    return job.deleted()


def three(job: Job) -> Moments:
    _launch(job)
    job.judged(job.exec("sh", "-c", f'{READY}; "$@"; cat {contract().result}', "run", *job.runner))
    return job.deleted()


def _launch(job: Job) -> None:
    words = ("--quiet", "--no-profiles", f"local:{job.plan.fingerprint}", job.name)
    job.incus("launch", *words, stdin=job.document)


@contextmanager
def running(job: Job) -> Iterator[Job]:
    """The job, whose guest has booted, and runs during the block."""
    try:
        _launch(job)
        job.incus("exec", job.name, "--", "sh", "-c", READY)
        yield job
    finally:
        job.deleted()


def bare_exec(guest: Job) -> Moments:
    """The command in a guest that runs: the least that any way to a guest takes."""
    began = time.monotonic()
    words = ("exec", "--project", PROJECT, "--force-noninteractive", guest.name)
    with subprocess.Popen(
        ["incus", *words, "--", "sh", "-c", COMMAND],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        first = client.stdout.read(1)
        moments = {FIRST_BYTE: time.monotonic() - began}
        client.stdout.read()
    if client.returncode or not first:
        raise Lost(f"the command ended with {client.returncode}")
    return moments | {VERDICT: time.monotonic() - began}


class _Unix(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


def rest(job: Job) -> Moments:
    connection = _Unix("incus")

    def ask(method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body)
        connection.request(method, f"/1.0/{path}", data)
        answer = connection.getresponse().read()
        return msgspec.json.decode(answer) if answer.startswith(b"{") else answer

    def do(method: str, path: str, body: object = None) -> Any:
        operation = ask(method, f"{path}?project={PROJECT}", body)["metadata"]["id"]
        ended = ask("GET", f"operations/{operation}/wait?project={PROJECT}")["metadata"]
        assert ended["status"] == "Success", ended
        return ended["metadata"]

    plan, place = job.plan, f"instances/{job.plan.instance}"
    source = {"type": "image", "fingerprint": plan.fingerprint}
    made = {"name": plan.instance, "source": source, "profiles": [], "start": True}
    do("POST", "instances", made | {"config": plan.config, "devices": plan.devices})
    script = f'{READY}; printf %b "$1" | {{ shift; "$@"; }}; cat {contract().result}'
    given = job.stdin.decode().replace("\0", "\\0")
    command = ["sh", "-c", script, "run", given, *job.runner]
    printed = do("POST", f"{place}/exec", {"command": command, "record-output": True})
    output = printed["output"]["1"].removeprefix("/1.0/")
    job.judged(ask("GET", f"{output}?project={PROJECT}"))
    do("PUT", f"{place}/state", {"action": "stop", "force": True, "timeout": -1})
    do("DELETE", place)
    job.reached(GONE)
    return job.moments
