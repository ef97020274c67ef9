"""The guest's `pikaci-incus-run`, as far as the host can see it.

It keeps the guest contract: three variables, stdin read first, a log that begins with
the boot line, log and result in place only when the job is dead, and a result with the job's nonce.
It does not limit its log, so that tests can reach the host's own limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial

import trio

from orchestrator.contract import contract
from orchestrator.fake_incus.faults import SPOILS, Kind
from orchestrator.fake_incus.guest import Guest, GuestCommand, GuestOutcome
from orchestrator.fake_incus.process import Input, Process

TRIAL = "pikaci-trial"
_TIMED_OUT = 124
_CANNOT_RUN = 125
_NOT_STARTED = 75
_CANCELLED = 130
_STARTED, _CODE = f"{contract().private}/started", f"{contract().private}/code"
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


async def run(
    guest: Guest, args: list[str], env: Mapping[str, str], stdin: Input, process: Process
) -> int:
    """The program: start the job or attach to it; `follow OFFSET`; `cancel`."""
    match args:
        case [] if guest.job is None and _STARTED in guest.files:
            # Of a job that ran before the guest was stopped, or copied: it is joined.
            process.output.write(guest.files.get(contract().log, b""))
            return int(guest.files.get(_CODE, b"125"))
        case []:
            if guest.job is None:
                given = await stdin.read()
                if env.get(contract().variables.needs_nonce) and not _ends_with_nonce(given):
                    return _fail(process, "stdin was cut short, no job was started", _NOT_STARTED)
                guest.files[_STARTED] = b""
                guest.job = guest.start(partial(_supervise, guest, env, given))
            return await _follow(guest, 0, process)
        case ["follow", offset] if offset.isdecimal():
            return await _follow(guest, int(offset), process)
        case ["cancel"] | ["cancel", "now"]:
            if guest.job is None:
                return _fail(process, "no job was started in this guest")
            guest.cancel_job()
            await guest.job.ended.wait()
            return 0
    return _fail(process, "usage: pikaci-incus-run [follow OFFSET | cancel [now]]")


def _ends_with_nonce(stdin: bytes) -> bool:
    *_, last, end = [b"", *stdin.split(b"\0")]
    return last.startswith(f"{contract().stdin.nonce}=".encode()) and not end


def _fail(process: Process, problem: str, code: int = _CANNOT_RUN) -> int:
    process.errors += f"pikaci-incus-run: {problem}\n".encode()
    return code


async def _follow(guest: Guest, offset: int, process: Process) -> int:
    if guest.job is None:
        return _fail(process, "no job was started in this guest")
    if offset > len(guest.job.output.data):
        return _fail(process, f"the log is shorter than {offset} bytes")

    async def copy(chunk: bytes) -> None:
        process.output.write(chunk)

    await guest.job.output.copy_to(copy, offset)
    await guest.job.ended.wait()
    assert guest.job.exit_code is not None
    return guest.job.exit_code


async def _supervise(guest: Guest, env: Mapping[str, str], stdin: bytes, job: Process) -> int:
    """The job's process: its output is the log, its exit code is the job's."""
    began = guest.now()
    job.output.write(f"[pikaci] incus guest booted at {_iso(began)}\n".encode())
    pairs = [pair.partition("=") for pair in stdin.decode().split("\0") if pair]
    given = {name: value for name, _, value in pairs}
    own = contract().stdin
    nonce = given.pop(own.nonce, "")
    said: dict[str, object] = {"log_complete": True}
    problem = _problem(env, pairs)
    if problem:
        job.output.write(f"[pikaci] error: {problem}\n".encode())
        status, code, message = "error", _CANNOT_RUN, problem
    else:
        names = contract().variables
        command = GuestCommand(
            instance=guest.instance.name,
            text=env[names.command],
            timeout_secs=int(env[names.timeout_secs]),
            run_as_root=env[names.run_as_root] == "1",
            environment={
                name: value
                for name, value in given.items()
                if name not in (own.grace_secs, own.lease_secs, own.scratch, own.log_bytes)
            },
            nonce=nonce,
            print=job.output.write,
            read=guest.read,
            write=guest.write,
            power_off=guest.power_off,
            count=partial(said.__setitem__, "usage"),
        )
        status, code, message, more = await _run(guest, command, job)
        said |= more
    result = {
        "schema": 1,
        "contract": contract().version,
        "nonce": nonce,
        "status": status,
        "exit_code": code,
        "started_at": _iso(began),
        "finished_at": _iso(guest.now()),
        "message": message,
        "log_bytes": len(job.output.data),
        **said,
    }
    _publish(guest, bytes(job.output.data), json.dumps(result).encode())
    guest.files[_CODE] = str(code).encode()
    return code


async def _run(
    guest: Guest, command: GuestCommand, job: Process
) -> tuple[str, int, str, dict[str, object]]:
    """Run the command; returns the job's status, exit code and message, and what else is said."""
    outcome: GuestOutcome | None = None
    with trio.move_on_after(command.timeout_secs) as scope:
        guest.cancel_job = scope.cancel
        try:
            outcome = _trial(command, guest) or await guest.script(command)
        finally:
            # Left behind if the guest stops now; otherwise moved away at the end.
            guest.files[_private_log()] = bytes(job.output.data)
    if outcome is None:
        if trio.current_time() < scope.deadline:
            return "cancelled", _CANCELLED, "test command was cancelled", {}
        message = f"test command timed out after {command.timeout_secs}s"
        return "timed_out", _TIMED_OUT, message, {}
    for path, content in outcome.artifacts.items():
        guest.files[f"{contract().artifacts}/{path}"] = content
    if outcome.samples:
        guest.files[contract().usage] = outcome.samples
    said: dict[str, object] = {"log_complete": outcome.log_complete}
    if outcome.usage is not None:
        said["usage"] = outcome.usage
    if not outcome.exit_code:
        return "passed", 0, "test passed", said
    if outcome.hint:
        said["hint"] = outcome.hint
    code = outcome.exit_code
    return "failed", code, f"test command exited with {code}", said


def _trial(command: GuestCommand, guest: Guest) -> GuestOutcome | None:
    """What pikaci's own command does that tries an image; None for any other command."""
    words = command.text.split()
    if TRIAL not in words:
        return None
    uid = 0 if command.run_as_root else contract().user.uid
    command.print(f"{words[-1]} {uid} /workspace/snapshot\n".encode())
    for path in guest.files:
        if path.startswith("/cargo-target/"):
            command.print(path.encode() + b"\n")
    return GuestOutcome()


def _problem(env: Mapping[str, str], pairs: list[tuple[str, str, str]]) -> str:
    """Why no job can run with these variables and this stdin; empty if it can."""
    names, last = contract().variables, contract().stdin.nonce
    if pairs and pairs[-1][0] != last:
        return f"stdin was cut short: {last}, which comes last, is missing"
    for name in (names.command, names.timeout_secs, names.run_as_root):
        if not env.get(name):
            return f"{name} is not set"
    if not re.fullmatch("[1-9][0-9]{0,6}", env[names.timeout_secs]):
        return f"{names.timeout_secs} must be a whole number of seconds from 1 to 9999999"
    if env[names.run_as_root] not in ("0", "1"):
        return f"{names.run_as_root} must be 1 or 0"
    for name, equals, _ in pairs:
        if not equals or not _NAME.fullmatch(name):
            return f"not a name for an environment variable: {name}"
    return ""


def _publish(guest: Guest, log: bytes, result: bytes) -> None:
    left: bytes | None = result
    fault = guest.faults.take(Kind.SPOIL, targets=("result",), name=guest.instance.name)
    if fault is not None:
        left = SPOILS[fault.text](result)
    guest.files.pop(_private_log(), None)
    guest.files[contract().log] = log
    if left is not None:
        guest.files[contract().result] = left


def _private_log() -> str:
    return f"{contract().private}/guest.log"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
