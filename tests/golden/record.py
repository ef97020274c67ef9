"""Records traces of real runs anew: `python -m tests.golden.record`. It wants the real Incus.

They stand under tests/ so that a change of the table that breaks old traces is seen. Who changes
the table on purpose keeps the old traces, and teaches `states.trace` to read them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIKACI = str(Path(sys.executable).with_name("pikaci"))
TRACES = Path(__file__).parent / "traces"
JOBS = """
schema = 1
[defaults]
memory = "512MiB"
[jobs.passed]
command = "echo fine"
[jobs.failed]
command = "echo broken; exit 3"
[jobs.timed_out]
command = "sleep 60"
timeout_secs = 1
[jobs.slow]
command = "echo one; sleep 4; echo two"
[jobs.short]
command = "sleep 1"
[jobs.waiting]
command = "sleep 15"
[jobs.infrastructure]
command = "true"
image = "golden/gone"
[jobs.rejected]
command = "true"
writable_workspace = true
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="golden-") as base:
        workspace = Path(base) / "workspace"
        workspace.mkdir()
        (workspace / "pikaci.toml").write_text(JOBS)

        def start(*args: str) -> subprocess.Popen[str]:
            argv = [PIKACI, *args, "--workspace", str(workspace), "--state-root", f"{base}/root"]
            return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, process_group=0)

        def pikaci(*args: str) -> str:
            return start(*args).communicate(timeout=300)[0]

        def incus(*args: str) -> str:
            argv = ["incus", "image", "alias", *args, "--project=pikaci"]
            return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

        def record(name: str, *job: str) -> None:
            (TRACES / f"{name}.jsonl").write_text(pikaci("trace", "export", *job))

        for name in ("passed", "failed", "timed_out", "rejected"):
            pikaci("run", name)
            record(name)
        # The image is removed while the job is queued.
        incus("create", "golden/gone", incus("list", "pikaci/dev", "--format=csv").split(",")[1])
        run = start("run", "waiting", "infrastructure", "--jobs", "1", "--verbose")
        assert run.stdout is not None
        while "running" not in run.stdout.readline():
            pass
        incus("delete", "golden/gone")
        run.communicate(timeout=60)
        record("infrastructure", "infrastructure")
        pikaci("run", "short", "passed", "--jobs", "1")
        waited = next(
            job["id"]
            for job in json.loads(pikaci("status", "--output", "json"))["jobs"]
            if '"waited"' in pikaci("trace", "export", job["id"])
        )
        record("waited", waited)
        for name, how, then in (
            ("cancelled", signal.SIGINT, "status"),
            ("recovered", signal.SIGKILL, "resume"),
        ):
            run = start("run", "slow", "--verbose")
            assert run.stdout is not None
            while "running" not in run.stdout.readline():
                pass
            time.sleep(0.5)
            run.send_signal(how)
            run.communicate(timeout=60)
            pikaci(then)
            record(name)


if __name__ == "__main__":
    main()
