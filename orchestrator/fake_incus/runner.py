"""The guest's `pikaci-incus-run`, as far as the host can see it.

It keeps the guest contract: three variables, stdin read to its end first, a log that begins
with the boot line, log and result renamed into place when the job is dead, and a result that
carries the job's nonce.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from functools import partial

import trio

from orchestrator.contract import contract
from orchestrator.fake_incus.faults import SPOILS, Kind
from orchestrator.fake_incus.guest import Guest, GuestCommand, GuestOutcome
from orchestrator.fake_incus.process import Process

_TIMED_OUT = 124
_CANNOT_RUN = 125
_TERMINATED = 143


async def run(
    guest: Guest, args: list[str], env: dict[str, str], stdin: bytes, process: Process
) -> int:
    """The program: start the job or join it; `follow OFFSET`; `cancel`."""
    if args[:1] == ["cancel"]:
        return await _cancel(guest)
    offset = 0
    if args[:1] == ["follow"]:
        offset = int(args[1])
    elif guest.job is None:
        variables = contract().variables
        for name in (variables.command, variables.timeout_secs, variables.run_as_root):
            if not env.get(name):
                process.errors += f"pikaci-incus-run: {name} is not set\n".encode()
                _write_result(guest, b"", _result("error", _CANNOT_RUN, f"{name} is not set"))
                return _CANNOT_RUN
        command = _command(guest, env, stdin)
        guest.job = guest.start(partial(_job, guest, command))
    if guest.job is None or offset > len(guest.job.output.data):
        process.errors += b"pikaci-incus-run: there is no job to follow\n"
        return _CANNOT_RUN

    async def copy(chunk: bytes) -> None:
        process.output.write(chunk)

    await guest.job.output.copy_to(copy, offset)
    await guest.job.ended.wait()
    assert guest.job.exit_code is not None
    return guest.job.exit_code


def _command(guest: Guest, env: dict[str, str], stdin: bytes) -> GuestCommand:
    pairs = (item.partition("=") for item in stdin.decode("utf-8", "surrogateescape").split("\0"))
    given = {name: value for name, _, value in pairs if name}
    own = contract().stdin
    nonce = given.pop(own.nonce, "")
    for name in (own.grace_secs, own.scratch):
        given.pop(name, None)
    variables = contract().variables

    def print_(data: bytes) -> None:
        if guest.job is not None:
            guest.job.output.write(data)

    return GuestCommand(
        instance=guest.instance.name,
        text=env[variables.command],
        timeout_secs=int(env[variables.timeout_secs]),
        run_as_root=env[variables.run_as_root] == "1",
        environment=given,
        nonce=nonce,
        print=print_,
        read=guest.read,
        write=guest.write,
        power_off=guest.power_off,
    )


async def _job(guest: Guest, command: GuestCommand, process: Process) -> int:
    began = guest.now()
    process.output.write(f"[pikaci] incus guest booted at {_iso(began)}\n".encode())
    cancelled = False
    outcome: GuestOutcome | None = None
    with trio.CancelScope() as scope:

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            scope.cancel()

        guest.cancel_job = cancel
        scope.deadline = trio.current_time() + (command.timeout_secs or math.inf)
        try:
            outcome = await guest.script(command)
        finally:
            # What is left when the guest goes now. Else it is moved away, below.
            guest.files[_private_log()] = bytes(process.output.data)
    if outcome is not None:
        for path, content in outcome.artifacts.items():
            guest.files[f"{contract().artifacts}/{path}"] = content
        code = outcome.exit_code
        status = "passed" if code == 0 else "failed"
        message = "test passed" if code == 0 else f"test command exited with {code}"
    elif cancelled:
        code, status, message = _TERMINATED, "cancelled", "test command was cancelled"
    else:
        code, status = _TIMED_OUT, "timed_out"
        message = f"test command timed out after {command.timeout_secs}s"
    result = _result(status, code, message) | {
        "nonce": command.nonce,
        "started_at": _iso(began),
        "finished_at": _iso(guest.now()),
        "log_bytes": len(process.output.data),
    }
    _write_result(guest, bytes(process.output.data), result)
    return code


async def _cancel(guest: Guest) -> int:
    guest.cancel_job()
    if guest.job is not None:
        await guest.job.ended.wait()
    return 0


def _result(status: str, exit_code: int, message: str) -> dict[str, object]:
    return {
        "schema": 1,
        "contract": contract().version,
        "status": status,
        "exit_code": exit_code,
        "message": message,
        "log_complete": True,
    }


def _write_result(guest: Guest, log: bytes, result: dict[str, object]) -> None:
    content: bytes | None = json.dumps(result).encode()
    fault = guest.faults.take(Kind.SPOIL, targets=("result",), name=guest.instance.name)
    if fault is not None:
        assert content is not None
        content = SPOILS[fault.text](content)
    guest.files.pop(_private_log(), None)
    guest.files[contract().log] = log
    if content is not None:
        guest.files[contract().result] = content


def _private_log() -> str:
    return f"{contract().private}/guest.log"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
