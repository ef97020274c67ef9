"""A guest without Incus: the contract's paths, in mount and PID namespaces of their own.

The runner's paths are fixed, so the tests give it a root filesystem in which they are real and
harmless: a tmpfs with the contract's directories and user, and this machine's /usr, read-only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

RUNNER = Path(__file__).parents[2] / "nix/guest/pikaci-incus-run"
CONTRACT: dict[str, Any] = json.loads(RUNNER.with_name("contract.json").read_text())
DEADLINE_SECS = 40.0  # of any one call; reached only when something hangs
QUIET = "exec 2>/dev/null; "  # for shells that would tell of each child that a signal ended

_SETUP = """
set -e
mount -t tmpfs -o mode=0755,size=256m tmpfs "$1"
cd "$1"
mkdir -p proc dev etc home root run tmp usr var/lib mnt opt/.upper opt/.work .old
chmod 1777 tmp
mount -o bind,ro /usr usr
mount --rbind /dev dev
if [ -d /run/current-system/sw ]; then # NixOS: its programs are links into its store
  mkdir -p run/current-system/sw nix/store
  cp -a /run/current-system/sw/bin run/current-system/sw/
  mount -o bind,ro /nix/store nix/store
  ln -s run/current-system/sw/bin bin
else
  cp -a /bin /sbin /lib* .
fi
# Not a bind mount on each file: one goes when the host's file below is replaced, as useradd does.
mount -t overlay -o "lowerdir=/etc,upperdir=$1/opt/.upper,workdir=$1/opt/.work" overlay etc
printf '%s\\n' root:x:0:0:root:/root:/bin/bash "$2:/bin/bash" >etc/passwd
printf '%s\\n' root:x:0: "$3" >etc/group
mount -o remount,bind,ro etc
read -r outer _ </proc/self/stat
pivot_root . .old
mount -t proc proc /proc
umount -l /.old
echo "$outer"
cd /
exec bash -c 'trap exit TERM PWR; exec </dev/null >/dev/null; while :; do sleep 1000 & wait; done'
"""


@dataclass(frozen=True)
class Ended:
    """What one job left: the exec's exit code and bytes, the log, the result (None: no file)."""

    code: int
    stdout: bytes
    stderr: bytes
    log: bytes
    result: dict[str, Any] | None

    @property
    def output(self) -> bytes:
        """The log without the runner's own first line."""
        return self.log.partition(b"\n")[2]


class Guest:
    """A context manager. `root` is the guest's filesystem as the host sees it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.root = Path()

    def __enter__(self) -> Guest:
        user = CONTRACT["user"]
        mountpoint = self._directory / "root"
        mountpoint.mkdir()
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", _SETUP, "bash",
             str(mountpoint),
             f"{user['name']}:x:{user['uid']}:{user['gid']}::{user['home']}",
             f"{user['group']}:x:{user['gid']}:"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline())
        self.root = Path(f"/proc/{self.pid}/root")
        for directory in CONTRACT["directories"]:
            self.mkdir(directory["path"], owner=directory["user"])
        self.mkdir(user["home"], owner=user["name"])
        runner = self.path(CONTRACT["runner"])
        runner.parent.mkdir(parents=True, exist_ok=True)
        runner.write_bytes(RUNNER.read_bytes())
        runner.chmod(0o755)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None and self._process.stdout is not None
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(self.pid, signal.SIGTERM)
        self.wait_until_off()
        self._process.stdout.close()

    def wait_until_off(self) -> None:
        """Wait until the guest's process 1 has ended, and with it all of the guest."""
        assert self._process is not None
        self._process.wait(DEADLINE_SECS)

    def path(self, path: str) -> Path:
        """The guest's absolute path, as the host sees it. Not for links that the job made."""
        return self.root / path.lstrip("/")

    def mkdir(self, path: str, owner: str = "root") -> Path:
        directory = self.path(path)
        directory.mkdir(parents=True, exist_ok=True)
        user = CONTRACT["user"]
        if owner == user["name"]:
            os.chown(directory, user["uid"], user["gid"])
        return directory

    def processes(self) -> set[str]:
        """The command lines of all that runs in the guest, its own init and dead ones apart."""
        lines = {line for pid, line in self._command_lines() if pid != 1}
        return lines - {"sleep 1000", ""}

    def left_in_the_end(self) -> set[str]:
        """The same, when those that were killed are gone."""
        give_up = time.monotonic() + DEADLINE_SECS
        while self.processes() and time.monotonic() < give_up:
            time.sleep(0.01)
        return self.processes()

    def pids_of(self, word: str) -> list[int]:
        """The PIDs, in the guest's numbers, of those with `word` among their arguments."""
        return [pid for pid, line in self._command_lines() if word in line.split(" ")]

    def _command_lines(self) -> Iterator[tuple[int, str]]:
        for entry in self.path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = entry.joinpath("cmdline").read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it ended meanwhile
                line = words.decode(errors="replace").rstrip("\0").replace("\0", " ")
                yield int(entry.name), line

    def popen(
        self,
        *arguments: str,
        env: Mapping[str, str | bytes] | None = None,
        program: str = CONTRACT["runner"],
    ) -> subprocess.Popen[bytes]:
        """What `incus exec -- env K=V ... program` starts, in a process group of its own."""
        base = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root"}
        variables = [
            os.fsencode(key) + b"=" + (value if isinstance(value, bytes) else value.encode())
            for key, value in {**base, **(env or {})}.items()
        ]
        return subprocess.Popen(
            ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--root", "--wd",
             "env", "-i", *variables, program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def call(self, *arguments: str, program: str = CONTRACT["runner"]) -> tuple[int, bytes, bytes]:
        """Run to the end: exit code, stdout, stderr."""
        process = self.popen(*arguments, program=program)
        stdout, stderr = process.communicate(timeout=DEADLINE_SECS)
        return process.returncode, stdout, stderr

    def shell(self, script: str) -> None:
        """Prepare the guest, as root."""
        code, _, stderr = self.call("-ec", script, program="bash")
        assert code == 0, stderr.decode()

    def start(
        self,
        command: str | bytes,
        *,
        timeout_secs: int = 20,
        root: bool = False,
        send: Mapping[str, str | bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a job as the host does; its stdin is written and closed."""
        process = self.popen(env=variables(command, timeout_secs, root))
        assert process.stdin is not None
        # A runner that fails at once may have ended before: how it ended is what tests look at.
        with suppress(BrokenPipeError):
            process.stdin.write(records({"PIKACI_INCUS_NONCE": "n0nce", **(send or {})}))
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdin = None
        return process

    def run(
        self,
        command: str | bytes,
        *,
        timeout_secs: int = 20,
        root: bool = False,
        send: Mapping[str, str | bytes] | None = None,
    ) -> Ended:
        """Run a job to its end."""
        return self.ended(self.start(command, timeout_secs=timeout_secs, root=root, send=send))

    def ended(self, process: subprocess.Popen[bytes]) -> Ended:
        """Wait for an exec of the runner, and read what the job left."""
        stdout, stderr = process.communicate(timeout=DEADLINE_SECS)
        log, result = self.path(CONTRACT["log"]), self.path(CONTRACT["result"])
        return Ended(
            code=process.returncode,
            stdout=stdout,
            stderr=stderr,
            log=log.read_bytes() if log.exists() else b"",
            result=json.loads(result.read_bytes()) if result.exists() else None,
        )


def variables(command: str | bytes, timeout_secs: int, root: bool) -> dict[str, str | bytes]:
    """The three variables of a start."""
    names = CONTRACT["variables"]
    return {
        names["command"]: command,
        names["timeout_secs"]: str(timeout_secs),
        names["run_as_root"]: "1" if root else "0",
    }


def records(pairs: Mapping[str, str | bytes]) -> bytes:
    """The stdin of a start: the nonce comes last."""
    last = {key: pairs[key] for key in ("PIKACI_INCUS_NONCE",) if key in pairs}
    first = {key: value for key, value in pairs.items() if key not in last}
    parts: Sequence[bytes] = [
        key.encode() + b"=" + (value if isinstance(value, bytes) else value.encode())
        for key, value in {**first, **last}.items()
    ]
    return b"".join(part + b"\0" for part in parts)


def wait_for(stream: IO[bytes] | None, words: bytes) -> bytes:
    """Read up to and with `words`; the bytes that were read."""
    assert stream is not None
    got = b""
    give_up = time.monotonic() + DEADLINE_SECS
    while words not in got:
        readable, _, _ = select.select([stream], [], [], max(0.0, give_up - time.monotonic()))
        assert readable, f"{words!r} did not come within {DEADLINE_SECS:g} s: {got!r}"
        chunk = os.read(stream.fileno(), 1)
        assert chunk, f"{words!r} never came: {got!r}"
        got += chunk
    return got
