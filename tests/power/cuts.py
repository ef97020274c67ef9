"""Cuts the power of a machine while pikaci runs jobs on it, boots it, and looks what is left.

    python -m tests.power.cuts --machine 'path/to/lab' --pikaci /root/v/bin/pikaci --times 20

`--machine` is a command with four verbs: `ssh COMMAND` runs a command as root in the machine, `cut`
cuts its power, `up` boots it and returns when it answers, and `ssh` works again. In the machine are
Incus, pikaci and its image. Exits with 1 if anything did not hold; every round is a line.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import threading
import time

from .after import Entry, problems, verdicts, whole_lines
from .machine import Machine

JOB = "for i in 1 2 3 4 5; do echo $i; sleep 1; done"
WORKSPACE, STATE = "/root/power/ws", "/root/power/state"


def command(machine: Machine, words: str) -> str:
    """A pikaci command, for the machine's shell."""
    state = f"PIKACI_STATE_ROOT={STATE}"
    return f"cd {WORKSPACE} && {state} {shlex.quote(machine.pikaci)} {words}"


def prepare(machine: Machine, jobs: int) -> None:
    """A workspace with so many jobs, and an empty state root."""
    names = "".join(f"[jobs.j{number}]\n" for number in range(jobs))
    text = f'schema = 1\n[defaults]\ncommand = "{JOB}"\nmemory = "128MiB"\n{names}'
    make = f"rm -rf {STATE} && mkdir -p {WORKSPACE} {STATE}"
    machine.says(f"{make} && printf %s {shlex.quote(text)} >{WORKSPACE}/pikaci.toml")


def heard_until_cut(machine: Machine, longest_secs: float) -> tuple[bytes, float]:
    """Run the jobs, and cut the power at a random moment after the first entry."""
    running = machine.start(command(machine, "run --output jsonl --jobs 4"))
    assert running.stdout is not None
    first = running.stdout.readline()
    heard = [first]
    reader = threading.Thread(target=lambda: heard.append(running.stdout.read()))  # type: ignore[union-attr]
    reader.start()
    secs = random.uniform(0, longest_secs)
    time.sleep(secs)
    machine.does("cut")
    running.kill()
    reader.join()
    return b"".join(heard), secs


def round_of(machine: Machine, jobs: int, longest_secs: float) -> tuple[str, list[str]]:
    """One cut: a line that tells of it, and what did not hold."""
    prepare(machine, jobs)
    data, secs = heard_until_cut(machine, longest_secs)
    heard = whole_lines(data)
    machine.does("up")
    machine.says("incus admin waitready --timeout 600")
    machine.says(command(machine, "resume >/dev/null 2>&1"), check=False)
    runs = json.loads(machine.says(command(machine, "list --output json")) or b"[]")
    journal: list[Entry] = []
    for run in runs:
        exported = machine.says(command(machine, f"trace export {run['run']}"))
        lines = [json.loads(line) for line in exported.splitlines()]
        journal += [line for line in lines if "job" in line and "type" in line]
    left = machine.says("incus list --project pikaci --format csv --columns n").decode().split()
    wrong = problems(heard, journal, left, jobs)
    line = (
        f"{secs:6.1f} s  {len(heard):4} entries heard, {len(journal):4} found  {verdicts(journal)}"
    )
    return line, wrong


def main() -> int:
    """Cut the power so many times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--machine", required=True, type=shlex.split)
    parser.add_argument("--pikaci", default="pikaci")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--within", type=float, default=60.0, help="seconds of the run")
    given = parser.parse_args()
    machine = Machine(given.machine, given.pikaci)
    bad = 0
    for number in range(1, given.times + 1):
        line, wrong = round_of(machine, given.jobs, given.within)
        print(f"{number:3}  {line}  {'ok' if not wrong else 'WRONG'}", flush=True)
        for problem in wrong:
            print(f"       {problem}", flush=True)
        bad += bool(wrong)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
