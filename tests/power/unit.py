"""docs/pikaci.service on a whole machine: starts, stops, hangs, dies and meets limits under a job.

    python -m tests.power.unit --machine 'path/to/lab' [ROW...]

`--machine` is that of `tests.power.cuts`; pikaci is at /opt/pikaci there, as in the unit. Every row
is a line, and what did not hold is below it; exits with 1 if anything did not. Under each row but
the first and the last a job counts to `COUNT`, one number a second: it must pass, and its log must
have each number once.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .machine import Machine

UNIT = Path(__file__).parents[2] / "docs" / "pikaci.service"
SOCKET = "/var/lib/pikaci/root/service.sock"
WORKSPACE = "/srv/unit"
COUNT = 40
WAIT_SECS = 600
DROP_IN = "/run/systemd/system/pikaci.service.d/test.conf"

# Clients that say nothing, more than the limit of descriptors allows; each is held open.
CROWD = """
import socket, sys, time
held = []
for number in range(int(sys.argv[2])):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    try:
        client.connect(sys.argv[1])
    except OSError:
        break
    held.append(client)
print(len(held), flush=True)
time.sleep(10)
"""


class Wrong(Exception):
    """Something does not hold."""


class Service:
    """The unit in the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def sh(self, script: str, *, check: bool = True) -> str:
        """What a shell of root prints."""
        return self.machine.says(script, check=check).decode()

    def install(self) -> None:
        """The unit, its user, and a workspace."""
        self.sh(
            "id pikaci >/dev/null 2>&1 || useradd --system --groups incus-admin pikaci;"
            f" mkdir -p {WORKSPACE} && echo here >{WORKSPACE}/file;"
            f" printf %s {shlex.quote(UNIT.read_text())} >/etc/systemd/system/pikaci.service;"
            " rm -rf /run/systemd/system/pikaci.service.d; systemctl daemon-reload"
        )

    def set(self, lines: str) -> None:
        """Add lines to its section Service, for this test, and restart it."""
        self.sh(
            f"mkdir -p {Path(DROP_IN).parent} &&"
            f" printf '[Service]\\n%s\\n' {shlex.quote(lines)} >{DROP_IN};"
            " systemctl daemon-reload; systemctl restart pikaci"
        )

    def unset(self) -> None:
        """Take them away again."""
        self.sh(f"rm -f {DROP_IN}; systemctl daemon-reload; systemctl restart pikaci")

    def shows(self, name: str) -> str:
        """A property, as systemd has it."""
        return self.sh(f"systemctl show pikaci --value -p {name}").strip()

    def ask(self, path: str, *words: str) -> str:
        """An answer of its API, "" for none."""
        command = ["curl", "-sS", "--max-time", "60", "--unix-socket", SOCKET, *words]
        asked = shlex.join([*command, f"http://pikaci{path}"])
        return self.sh(f"runuser -u pikaci -- {asked} 2>/dev/null", check=False)

    def submit(self) -> str:
        """Begin the job that counts; return when it does."""
        command = f"for i in $(seq {COUNT}); do echo $i; sleep 1; done"
        body = {"workspace": WORKSPACE, "jobs": {"j": {"command": command, "memory": "128MiB"}}}
        self.until(lambda: self.ask("/readyz").startswith("ok"), "it is not ready")
        said = self.ask("/v1/runs", "-H", "Content-Type: application/json", "-d", json.dumps(body))
        try:
            job: str = json.loads(said)["jobs"][0]["id"]
        except (ValueError, LookupError):
            raise Wrong(f"no job: {said}") from None
        self.until(lambda: "5" in self.log(job), "the job does not begin")
        return job

    def log(self, job: str) -> list[str]:
        """What the job has printed so far, without what its runner says first."""
        return self.ask(f"/v1/jobs/{job}/log").splitlines()[1:]

    def passes(self, job: str) -> None:
        """Wait for the job's end, and look at its log."""
        self.until(lambda: self.verdict(job) not in (None, ""), "the job does not end")
        if (verdict := self.verdict(job)) != "passed":
            raise Wrong(f"the job {verdict}: {self.ask(f'/v1/jobs/{job}')}")
        if (log := self.log(job)) != [str(number) for number in range(1, COUNT + 1)]:
            raise Wrong(f"its log has {len(log)} lines: {log}")

    def verdict(self, job: str) -> str | None:
        """How a job ended; None while it has not, "" while nobody answers."""
        try:
            found: str | None = json.loads(self.ask(f"/v1/jobs/{job}")).get("verdict")
        except ValueError:
            return ""
        return found

    def until(self, holds: Callable[[], bool], what: str) -> float:
        """Wait until something holds; how many seconds that took."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > WAIT_SECS:
                raise Wrong(f"{what}: {self.sh('systemctl status pikaci', check=False)}")
            time.sleep(1)
        return time.monotonic() - began

    def restarted(self, before: int) -> str:
        """Wait until systemd has started it anew, and it is ready; say how long that took."""
        secs = self.until(lambda: int(self.shows("NRestarts")) > before, "it is not started anew")
        more = self.until(lambda: self.ask("/readyz").startswith("ok"), "it is not ready")
        return f"started anew after {secs:.0f} s, ready {more:.0f} s later"

    def journal(self, *words: str) -> list[dict[str, str]]:
        """Its lines in the journal, with their fields."""
        said = self.sh(shlex.join(["journalctl", "-u", "pikaci", "-o", "json", "-q", *words]))
        return [json.loads(line) for line in said.splitlines()]


def starts(service: Service) -> str:
    """It is active when it says so, and only its user can open its socket."""
    began = time.monotonic()
    service.sh("systemctl restart pikaci")
    secs = time.monotonic() - began
    if (state := service.shows("ActiveState")) != "active":
        raise Wrong(state)
    if (mode := service.sh(f"stat -c '%U %a' {SOCKET}").split()) != ["pikaci", "600"]:
        raise Wrong(f"{mode}")
    return f"active after {secs:.0f} s"


def stops(service: Service) -> str:
    """`systemctl stop` with a running job: code 0, and the next start takes the job up."""
    job = service.submit()
    began = time.monotonic()
    service.sh("systemctl stop pikaci")
    secs = time.monotonic() - began
    result, guests = service.shows("Result"), service.sh("incus list --project pikaci -f csv -c s")
    if (result, guests.split()) != ("success", ["RUNNING"]):
        raise Wrong(f"{result}, {guests}")
    time.sleep(10)
    service.sh("systemctl start pikaci")
    service.passes(job)
    return f"stopped in {secs:.0f} s, with 0; the guest ran on"


def upgrades(service: Service) -> str:
    """`systemctl restart` with a running job."""
    job = service.submit()
    began = time.monotonic()
    service.sh("systemctl restart pikaci")
    secs = time.monotonic() - began
    service.passes(job)
    return f"restarted in {secs:.0f} s"


def is_killed(service: Service) -> str:
    """KILL, as by the kernel."""
    job, before = service.submit(), int(service.shows("NRestarts"))
    service.sh(f"kill -KILL {service.shows('MainPID')}")
    told = service.restarted(before)
    service.passes(job)
    return told


def hangs(service: Service) -> str:
    """Stopped, so that the watchdog hears nothing, with less time for it than in the unit.

    The journal says where the service was, and no core dump is left.
    """
    service.set("WatchdogSec=20\nTimeoutAbortSec=5")
    try:
        job, before = service.submit(), int(service.shows("NRestarts"))
        service.sh(f"kill -STOP {service.shows('MainPID')}")
        told = service.restarted(before)
        lines = [str(line.get("MESSAGE", "")) for line in service.journal("-b", "-n", "200")]
        for said in ("pikaci.service: Watchdog timeout", "Fatal Python error: Aborted"):
            if not any(line.startswith(said) for line in lines):
                raise Wrong(f"not in the journal: {said}")
        if cores := service.sh("find /var/lib/pikaci /var/lib/systemd/coredump -name '*core*'"):
            raise Wrong(cores)
        service.passes(job)
    finally:
        service.unset()
    return told


def runs_out_of_descriptors(service: Service) -> str:
    """A lower limit than the unit's, and more silent clients than it allows."""
    service.set("LimitNOFILE=256")
    try:
        job = service.submit()
        crowd = service.machine.start(
            shlex.join(["runuser", "-u", "pikaci", "--", "python3", "-c", CROWD, SOCKET, "600"])
        )
        assert crowd.stdout is not None
        held = crowd.stdout.readline().decode().strip()
        answer = service.ask("/healthz")
        crowd.wait()
        service.passes(job)
    finally:
        service.unset()
    return f"{held} clients, and the service said {answer.strip() or 'nothing'!r}"


def runs_out_of_memory(service: Service) -> str:
    """The kernel kills it while the limit is too low, and systemd starts it when it is not."""
    job, before = service.submit(), int(service.shows("NRestarts"))
    service.sh("systemctl set-property --runtime pikaci MemoryMax=24M MemorySwapMax=0")
    service.until(lambda: int(service.shows("NRestarts")) > before, "it is not killed")
    service.sh("systemctl set-property --runtime pikaci MemoryMax=infinity")
    told = service.restarted(before)
    killed = any(
        "oom" in str(line.get("MESSAGE", "")) for line in service.journal("-b", "-n", "99")
    )
    if not killed:
        raise Wrong("the journal does not say that memory ran out")
    service.passes(job)
    return told


def runs_out_of_tasks(service: Service) -> str:
    """No further thread or process for 20 s, then again."""
    job = service.submit()
    now = service.shows("TasksCurrent")
    service.sh("systemctl set-property --runtime pikaci TasksMax=1")
    time.sleep(20)
    alive = service.shows("ActiveState")
    service.sh("systemctl set-property --runtime pikaci TasksMax=infinity")
    service.passes(job)
    return f"{now} tasks before; {alive} meanwhile"


def is_logged(service: Service) -> str:
    """By level; what is below a warning is JSON with the level that the journal has."""
    service.sh("systemctl stop incus.socket incus.service")
    try:
        service.until(lambda: bool(service.journal("-b", "-p", "warning", "_COMM=pikaci")), "none")
    finally:
        service.sh("systemctl start incus.socket incus.service")
    levels = {"info": "6", "warning": "4", "error": "3"}
    counted: dict[str, int] = {}
    for line in service.journal("-b"):
        if not str(line.get("MESSAGE", "")).startswith("{"):
            continue
        said = json.loads(line["MESSAGE"])
        counted[said["level"]] = counted.get(said["level"], 0) + 1
        if levels[said["level"]] != line["PRIORITY"]:
            raise Wrong(f"{line['PRIORITY']}: {said}")
    return ", ".join(f"{count} {level}" for level, count in counted.items())


def is_hardened(service: Service) -> str:
    """The figure of `systemd-analyze security`."""
    said = service.sh("systemd-analyze security --no-pager pikaci | tail -n 1")
    return said.strip().strip("→ ")


ROWS = {
    row.__name__: row
    for row in (
        starts, is_hardened, stops, upgrades, is_killed, hangs,
        runs_out_of_descriptors, runs_out_of_memory, runs_out_of_tasks, is_logged,
    )
}  # fmt: skip


def main() -> int:
    """Try the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--machine", required=True, type=shlex.split)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    given = parser.parse_args()
    service = Service(Machine(given.machine, "/opt/pikaci/bin/pikaci"))
    service.install()
    bad = 0
    for name in given.rows or ROWS:
        began = time.monotonic()
        try:
            told, word = ROWS[name](service), "ok"
        except Wrong as wrong:
            told, word = str(wrong), "WRONG"
        bad += word != "ok"
        print(f"{name:24} {word:6} {time.monotonic() - began:4.0f} s  {told}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
