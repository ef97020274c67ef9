"""Why a job failed, how it went, and whether it is flaky, with real guests."""

from __future__ import annotations

import json

import pytest

from tests.integration.command import Command

JOBS = """
schema = 1
[defaults]
memory = "512MiB"
[jobs.python]
command = "python3 build.py"
[jobs.make]
command = "make"
[jobs.quiet]
command = "echo checking; test 1 = 2"
[jobs.eats]
command = "python3 -c 'x = bytearray(1 << 40)' || python3 -c 'x = [bytearray(1 << 24) for _ in range(1000)]'"
[jobs.shy]
command = "echo error: $TOKEN is refused; exit 3"
secrets.TOKEN = { env = "REASONS_TOKEN" }
"""
REASONS = {
    "python": "FileNotFoundError: [Errno 2] No such file or directory: 'settings.json'",
    "make": "cp: cannot stat 'missing.txt': No such file or directory",
    "quiet": "",
    "eats": "the guest ran out of memory",
    "shy": "",
}


@pytest.mark.incus
def test_the_reasons_of_real_jobs(pikaci: Command) -> None:
    """The line of the log, where there is one; none that holds a secret."""
    pikaci.write(JOBS)
    (pikaci.workspace / "build.py").write_text("open('settings.json')\n")
    (pikaci.workspace / "Makefile").write_text("all:\n\tcp missing.txt /tmp/out.txt\n")

    done = pikaci("run", REASONS_TOKEN="s3cr3t-v4lue")
    report = json.loads(pikaci("status", "--output", "json").stdout)

    assert 1 == done.returncode
    assert REASONS == {job["name"]: job["reason"] for job in report["jobs"]}
    end = done.stdout.splitlines()
    assert f"  make    {REASONS['make']} (exit code 2)" in end
    assert "  quiet   test command exited with 1" in end
    for job in report["jobs"]:
        del job["log_end"]  # of the log, which has what the job printed
    assert "s3cr3t" not in json.dumps(report)


FLAKY = """
schema = 1
[jobs.test]
command = "cat /mnt/data/price.txt"
mounts = [{ source = "../data", path = "/mnt/data" }]
"""


@pytest.mark.incus
def test_a_flake_is_found_by_running_again(pikaci: Command) -> None:
    """The same inputs, as far as pikaci knows: what a directory of the host has is in no key."""
    data = pikaci.workspace.parent / "data"
    data.mkdir()
    (data / "price.txt").write_text("12\n")
    pikaci.write(FLAKY)

    assert 0 == pikaci("run", "--repeat", "2", "test").returncode
    (data / "price.txt").unlink()
    failed = pikaci("run", "--repeat", "3", "--until-fail", "test")
    (job,) = json.loads(pikaci("status", "test", "--output", "json").stdout)["jobs"]
    (flake,) = json.loads(pikaci("flakes", "--output", "json").stdout)
    history = pikaci("history", "test").stdout
    diff = pikaci("trace", "diff", "test")

    assert 1 == failed.returncode
    assert "1 run: 1 failed\n" in failed.stdout
    assert "test: flaky: failed here, passed in run " in failed.stdout
    assert "(2 of 3 passed); what may differ: mounts\n" in failed.stdout
    assert "cat: /mnt/data/price.txt: No such file or directory" == job["reason"]
    assert (2, 1) == (job["flake"]["passed"], job["flake"]["failed"])
    assert (2, 1, job["id"]) == (flake["passed"], flake["failed"], flake["failed_job"])
    assert history.startswith("test: 3 results, 2 passed, 1 failed (67 % passed)\n")
    assert "  same inputs: commit, files, image, inputs and spec\n" in diff.stdout
    assert 1 == diff.returncode
