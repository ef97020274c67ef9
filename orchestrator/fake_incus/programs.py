"""The programs that an exec can run in the fake guest, in one table.

A script of the host, `sh -c SCRIPT NAME ARGS...`, is recognised by its NAME; the guest does what
the script is for without reading it. Everything else is recognised by the program's path or its
last part.
"""

from __future__ import annotations

import io
import posixpath
import re
import shlex
import tarfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import trio

from orchestrator.contract import contract
from orchestrator.egress import frames
from orchestrator.fake_incus import runner, shell
from orchestrator.fake_incus.faults import Kind
from orchestrator.fake_incus.guest import Guest
from orchestrator.fake_incus.process import Input, Process

_NOT_READY = 75
_NOT_FOUND = 127


@dataclass(frozen=True)
class Exec:
    """A command in a guest: its program in the table, and its input."""

    program: str
    args: list[str]
    env: dict[str, str]
    stdin: Input


def recognise(argv: tuple[str, ...], stdin: Input, variables: Sequence[str] = ()) -> Exec:
    """Find the program of a command line in the table; `variables` are the exec's own."""
    remaining = list(argv)
    env = dict(variable.split("=", 1) for variable in variables)
    if remaining[:1] == ["env"]:
        remaining.pop(0)
        while remaining and "=" in remaining[0]:
            name, _, value = remaining.pop(0).partition("=")
            env[name] = value
    program, *args = remaining or [""]
    if program in ("sh", "bash", "/bin/sh", "/bin/bash"):
        while args and args[0] != "-c":
            args.pop(0)
        named = args[2] if len(args) > 2 else ""
        if named in PROGRAMS:
            return Exec(named, args[3:], env, stdin)
        return Exec("sh", args[1:2], env, stdin)
    if program != contract().runner:
        program = posixpath.basename(program)
    return Exec(program, args, env, stdin)


def halves(argv: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The readiness wait and the command that it becomes; one of them is empty if it stands alone.

    The script knows where the mounts end by a `--`.
    """
    if argv[:1] + argv[3:4] != ("sh", "pikaci-ready"):
        return (), argv
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def start(guest: Guest, command: Exec) -> Process:
    """Start the command in the guest."""
    # A file under a program's path is one that a job has put there.
    replaced = command.program in guest.files
    program = _missing if replaced else PROGRAMS.get(command.program, _missing)
    return guest.start(partial(program, guest, command))


async def _ready(guest: Guest, command: Exec, process: Process) -> int:
    """SECS RUNNER LISTEN MOUNT...: wait until everything is there, or print what is missing."""
    secs, _, _, *mounts = command.args
    fault = guest.faults.take(Kind.NEVER_READY, targets=("ready",), name=guest.instance.name)
    with trio.move_on_after(float(secs)):
        if fault is not None:
            await trio.sleep_forever()
        await guest.wait_mounted(mounts)
        return 0
    missing = [f"the mount {mount}" for mount in mounts if mount not in guest.mounts]
    process.output.write((fault.text if fault is not None else missing[0]).encode())
    return _NOT_READY


async def _collect(guest: Guest, command: Exec, process: Process) -> int:
    """DIRECTORY REGEX NAME...: print a tar of the named files and those that match REGEX."""
    directory, expression, *names = command.args
    files = {
        f".{path.removeprefix(directory)}": content
        for path, content in sorted(guest.files.items())
        if path.startswith(f"{directory}/")
    }
    taken = re.compile(expression, re.DOTALL)
    chosen = [name for name in names if name in files]
    chosen += [name for name in files if taken.fullmatch(name)]
    process.output.write(_packed({name: files[name] for name in chosen}))
    return 0


async def _output(guest: Guest, command: Exec, process: Process) -> int:
    """DIRECTORY: print a tar of all files below it."""
    directory = command.args[0]
    files = {
        f".{path.removeprefix(directory)}": content
        for path, content in sorted(guest.files.items())
        if path.startswith(f"{directory}/")
    }
    if not files:
        process.output.write(b"missing\n")
        return 3
    process.output.write(_packed(files))
    return 0


async def _clean(guest: Guest, command: Exec, process: Process) -> int:
    """PRIVATE ARTIFACTS TARGET USER MOUNT...: delete what a job left, and print what is there."""
    private, artifacts, target, _, *mounts = command.args
    for mount in mounts:
        guest.mounts.pop(mount, None)
    guest.remove(private, artifacts, target, "/tmp", "/var/tmp", "/var/log")
    size = sum(map(len, guest.files.values()))
    process.output.write(f"{size}\t/ {len(guest.files)}\t/\n".encode())
    return 0


async def _remove(guest: Guest, command: Exec, process: Process) -> int:
    paths = [word for word in command.args if not word.startswith("-")]
    guest.remove(*paths)
    if contract().private in paths:
        guest.job = None
    return 0


def _packed(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


async def _run(guest: Guest, command: Exec, process: Process) -> int:
    return await runner.run(guest, command.args, command.env, command.stdin, process)


async def _egress(guest: Guest, command: Exec, process: Process) -> int:
    """carry PORT SECS: the guest's end of the way out; no job of the fake connects to anything."""
    hello = frames.Hello(fresh=not guest.listens, gap_ms=0, cut=0, late=0)
    guest.listens = True
    said = frames.frame(frames.Kind.HELLO, 0, msgspec.json.encode(hello))
    process.output.write(said)
    await trio.sleep_forever()
    return 0


async def _shell(guest: Guest, command: Exec, process: Process) -> int:
    text = " ".join(command.args)
    return await shell.interpret(text, process.output.write, guest.read, guest.write)


async def _plain(guest: Guest, command: Exec, process: Process) -> int:
    if command.program == "cat" and not command.args:
        process.output.write(await command.stdin.read())
        return 0
    if command.program == "tee":
        data = await command.stdin.read()
        process.output.write(data)
        for path in command.args:
            try:
                guest.write(path, data)
            except OSError as error:
                process.errors += f"tee: {path}: {error.strerror}\n".encode()
                return 1
        return 0
    text = shlex.join([command.program, *command.args])
    return await shell.interpret(text, process.output.write, guest.read, guest.write)


async def _missing(guest: Guest, command: Exec, process: Process) -> int:
    return _NOT_FOUND


PROGRAMS: dict[str, Callable[[Guest, Exec, Process], Awaitable[int]]] = {
    contract().runner: _run,
    posixpath.basename(contract().egress.program): _egress,
    "pikaci-ready": _ready,
    "pikaci-collect": _collect,
    "pikaci-output": _output,
    "pikaci-clean": _clean,
    "rm": _remove,
    "sh": _shell,
    **dict.fromkeys(("true", "false", "echo", "sleep", "cat", "tee"), _plain),
}
