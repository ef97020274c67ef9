"""The job by what other projects use for guests. `.ci/bench-peers` installs it below build/peers."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote

from orchestrator.contract import contract
from tests.benchmarks.bench.plain import (
    BENCH_KEY,
    COMMAND,
    FIRST_BYTE,
    GONE,
    PROJECT,
    READY,
    VERDICT,
    Job,
    Lost,
    Moments,
)

PEERS = Path("build/peers").absolute()
_CRAFT = PEERS / "python" / "bin" / "python"
_VIRT = PEERS / "debian" / "usr" / "bin" / "autopkgtest-virt-incus"
# craft-providers knows LXD's command, takes the disk from a profile, and has mounts that this kernel
# and LXC refuse for guests that run.
_LXC = f"""#!/bin/sh
case " $* " in
  *" launch "*) exec incus "$@" --no-profiles --storage {PROJECT} </dev/null ;;
  *" device add "*) exec incus "$@" shift=true readonly=true ;;
esac
exec incus "$@"
"""
# autopkgtest takes it for a failure that `launch` says something, as of a guest without a network; and
# would wait forever until an image with an init of its own has booted by systemd, or to a runlevel.
_INCUS = f"""#!/bin/sh
case "$*" in
  launch*) exec 2>/dev/null ;;
  *is-system-running*) set -- exec "$2" -- sh -c '{READY}' ;;
esac
exec {shutil.which("incus")} "$@"
"""


class NotInstalled(Exception):
    """Why a peer cannot run."""


def craft_providers(job: Job) -> Moments:
    """Its classes for LXD, on Incus. The time begins when they are imported."""
    if not _CRAFT.exists():
        raise NotInstalled("craft-providers is not installed: make bench-peers")
    lxc = job.base / "lxc"
    if not lxc.exists():
        lxc.write_text(_LXC)
        lxc.chmod(0o755)
    mounts = [
        {"name": name, "source": keys["source"], "path": keys["path"]}
        for name, keys in job.plan.devices.items()
        if name != "root"
    ]
    document = {
        "lxc": str(lxc),
        "project": PROJECT,
        "instance": job.plan.instance,
        "image": job.plan.fingerprint,
        "config": job.plan.config,
        "mounts": mounts,
        "ready": READY,
        "runner": job.runner,
        "stdin": base64.b64encode(job.stdin).decode(),
        "result": contract().result,
        "log": contract().log,
    }
    done = subprocess.run(
        [_CRAFT, Path(__file__).with_name("craft.py")],
        env={**os.environ, "LXD_DIR": "/var/lib/incus"},
        input=json.dumps(document).encode(),
        capture_output=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-300:])
    told = json.loads(done.stdout)
    if job.nonce not in told["result"]:
        raise Lost(f"{job.name}: the result is {told['result']!r}")
    return dict(told["moments"])


def autopkgtest(job: Job) -> Moments:
    """One test bed of autopkgtest's program for Incus, by its protocol of lines."""
    if not _VIRT.exists():
        raise NotInstalled("autopkgtest is not installed: make bench-peers")
    began = time.monotonic()
    # Its guests mount nothing by which they could be known as the benchmark's.
    settings = job.plan.config | {BENCH_KEY: str(job.base)}
    config = [f"--config={key}={value}" for key, value in settings.items()]
    image = f"local:{job.plan.fingerprint}"
    tools = job.base / "tools"
    if not tools.exists():
        tools.mkdir()
        # It refuses to start where there is no dnsmasq, which it does not use.
        (tools / "dnsmasq").symlink_to("/bin/true")
        (tools / "incus").write_text(_INCUS)
        (tools / "incus").chmod(0o755)
    moments: Moments = {}
    with subprocess.Popen(
        ["python3", _VIRT, image, "--quiet", "--no-profiles", "--storage", PROJECT, *config],
        env={**os.environ, "INCUS_PROJECT": PROJECT, "PATH": f"{tools}:{os.environ['PATH']}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as bed:
        assert bed.stdin is not None and bed.stdout is not None
        to_bed, from_bed = bed.stdin, bed.stdout

        def ask(request: str) -> str:
            to_bed.write(f"{request}\n")
            to_bed.flush()
            answer = from_bed.readline()
            if not answer.startswith("ok"):
                raise RuntimeError(f"{request}: {answer}")
            return answer.removeprefix("ok").strip()

        from_bed.readline()  # "ok"
        ask("open")
        words = [unquote(word) for word in ask("print-execute-command").split(",")]
        with subprocess.Popen(
            [*words, "sh", "-c", COMMAND],
            env={**os.environ, "INCUS_PROJECT": PROJECT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as run:
            assert run.stdout is not None
            run.stdout.read(1)
            moments[FIRST_BYTE] = time.monotonic() - began
            run.stdout.read()
        if run.returncode:
            raise Lost(f"the command ended with {run.returncode}")
        moments[VERDICT] = time.monotonic() - began
        ask("close")
        moments[GONE] = time.monotonic() - began
        to_bed.write("quit\n")
        to_bed.close()
    return moments
