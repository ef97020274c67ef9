"""The command as a person or a program calls it, on the real Incus."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from states.trace import replay
from tests.integration.command import AT_THE_GATE, PIKACI, SECS, Command

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"

JOBS = """
schema = 1
[defaults]
timeout_secs = 60
[jobs.good]
command = "echo fine"
[jobs.bad]
command = "echo broken; exit 7"
[jobs.slow]
command = "echo begun; sleep 60"
timeout_secs = 1
[jobs.lost]
command = "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'; sleep 20"
run_as_root = true
[jobs.imageless]
command = "true"
image = "no/such"
[jobs.writable]
command = "true"
writable_workspace = true
"""


def valid(name: str, document: Any) -> Any:
    """The document, which has the form that docs/ promises."""
    jsonschema.validate(document, json.loads((SCHEMAS / name).read_text()))
    return document


@pytest.mark.incus
@pytest.mark.parametrize(
    ("args", "tree"),
    [
        (["--file", "../other/jobs.toml"], "other"),
        (["--file", "../other/jobs.toml", "--workspace", "."], "ws"),
    ],
)
def test_the_workspace_is_the_one_that_is_printed(
    pikaci: Command, args: list[str], tree: str
) -> None:
    """The directory of the job file that `--file` names, unless `--workspace` names another."""
    other = pikaci.workspace.parent / "other"
    other.mkdir()
    (other / "jobs.toml").write_text('schema = 1\n[jobs.list]\ncommand = "ls"\n')
    for path in (pikaci.workspace, other):
        (path / f"in-{path.name}").touch()

    done = pikaci("run", *args)

    assert 0 == done.returncode
    assert f"1 job of {pikaci.workspace.parent / tree}\n" in done.stdout + done.stderr
    assert ["in-other" in done.stdout, "in-ws" in done.stdout] == [tree == "other", tree == "ws"]


@pytest.mark.incus
@pytest.mark.parametrize(
    ("jobs", "code", "outcome"),
    [
        (["good"], 0, "passed"),
        (["good", "bad"], 1, "failed"),
        (["slow"], 3, "timed_out"),
        (["lost"], 4, "infrastructure"),
        (["bad", "slow", "lost"], 1, "failed"),
        (["slow", "lost"], 3, "timed_out"),
        (["good", "writable"], 2, "rejected"),
    ],
)
def test_exit_code_and_document_of_a_run(
    pikaci: Command, jobs: list[str], code: int, outcome: str
) -> None:
    """The first of 130, 1, 3, 4 counts; stdout is the document alone; paths are absolute."""
    pikaci.write(JOBS)

    done = pikaci("run", *jobs, "--output", "json")

    report = valid("run.json", json.loads(done.stdout))
    assert (code, outcome, code) == (done.returncode, report["outcome"], report["exit_code"])
    assert "" == done.stderr
    for job in report["jobs"]:
        if job["log"]:
            assert Path(job["log"]).is_absolute()
            assert Path(job["log"]).exists()
    if outcome == "rejected":
        assert ["writable"] == [job["job"] for job in report["jobs"]]
        assert (
            "remote Linux VM backend `incus` does not support writable workspace jobs"
            == (report["jobs"][0]["failure"]["message"])
        )


@pytest.mark.incus
@pytest.mark.parametrize("output", ["human", "json"])
def test_a_snapshot_s_warnings_are_told_on_stderr(pikaci: Command, output: str) -> None:
    """A submodule that is not initialised is named, and the run goes on without it."""
    pikaci.write(JOBS)
    (pikaci.workspace / "sub").mkdir()
    add_gitlink = ["git", "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub"]
    for command in (["git", "init", "-q"], add_gitlink):
        subprocess.run(command, cwd=pikaci.workspace, check=True)

    done = pikaci("run", "good", "--output", output)

    assert 0 == done.returncode
    assert "warning: submodules that are not initialised are empty: sub\n" == done.stderr


@pytest.mark.incus
def test_a_repository_that_git_cannot_read_is_told_in_git_s_words(pikaci: Command) -> None:
    """Before a job is submitted, or a snapshot made."""
    pikaci.write(JOBS)
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "core.repositoryFormatVersion", "1"],
        ["git", "config", "extensions.refStorage", "reftable"],
    ):
        subprocess.run(command, cwd=pikaci.workspace, check=True)

    done = pikaci("run", "good")

    assert (2, "") == (done.returncode, "".join(done.stdout.splitlines()[1:]))
    assert "git cannot read this repository" in done.stderr and "refstorage" in done.stderr
    assert [] == list((pikaci.root / "snapshots").iterdir())


@pytest.mark.incus
def test_the_record_of_a_job_has_all_that_it_was(pikaci: Command) -> None:
    """Snapshot, image, instance, phases with durations, attempts."""
    pikaci.write(JOBS)

    (job,) = json.loads(pikaci("run", "good", "--output", "json").stdout)["jobs"]

    assert ("good", "result_collected", "passed", 0, 1) == (
        job["job"],
        job["state"],
        job["outcome"],
        job["exit_code"],
        job["attempts"],
    )
    assert (64, None, "pikaci/dev", 64) == (
        len(job["snapshot"]["hash"]),
        job["snapshot"]["commit"],
        job["image"]["alias"],
        len(job["image"]["fingerprint"]),
    )
    assert all(phase["duration_ms"] > 0 for phase in job["phases"][:-1])


@pytest.mark.incus
def test_json_lines_are_the_journal_s_entries(pikaci: Command) -> None:
    """Each line has the form that docs/ promises, and they replay to the job."""
    done = pikaci("run", "--output", "jsonl", "--", "true")

    lines = [valid("event.json", json.loads(line)) for line in done.stdout.splitlines()]
    job = lines[0]["job"]
    assert "submitted" == lines[0]["type"]
    assert "lease_ended" == lines[-1]["type"]
    traced = pikaci("trace", "export", job)
    assert lines == [json.loads(line) for line in traced.stdout.splitlines()[1:]]
    assert "result_collected" == replay(traced.stdout.encode()).state


@pytest.mark.incus
def test_a_person_sees_output_and_reasons_as_lines(pikaci: Command) -> None:
    """Where there is no terminal: each line behind its job's name, and no escape sequence."""
    pikaci.write(JOBS)

    done = pikaci("run", "good", "bad")

    *_, counts, bad, logs, rerun = done.stdout.splitlines()
    for words in ("good | fine", "bad  | broken", "\u2717 bad ", "test command exited with 7"):
        assert words in done.stdout
    assert counts.startswith("1 passed, 1 failed in ")
    assert "  bad  test command exited with 7" == bad
    assert ["-> pikaci logs bad", "-> pikaci rerun --failed"] == [logs, rerun]
    assert "\x1b" not in done.stdout


@pytest.mark.incus
def test_quiet_shows_output_of_what_failed_alone(pikaci: Command) -> None:
    """The last lines below the reason."""
    pikaci.write(JOBS)

    done = pikaci("run", "-q", "good", "bad")

    assert "    | broken" in done.stdout
    assert "fine" not in done.stdout


@pytest.mark.incus
def test_verbose_tells_what_is_being_done(pikaci: Command) -> None:
    """Each state in a person's words."""
    pikaci.write(JOBS)

    done = pikaci("run", "-v", "good")

    for word in ("queued", "creating", "starting", "running"):
        assert f"good: {word}\n" in done.stdout


@pytest.mark.incus
def test_one_command_prints_its_output_and_nothing_else(pikaci: Command) -> None:
    """Byte for byte where there is no terminal; stderr has what went wrong, and nothing else."""
    passed = subprocess.run(
        [PIKACI, "run", "--", r"printf 'a\tb\377\r\n\033[31mred'; echo err >&2"],
        cwd=pikaci.workspace, env=pikaci.env, capture_output=True, timeout=SECS,
    )  # fmt: skip
    failed = pikaci("run", "--", "echo out; exit 7")

    assert (0, b"a\tb\xff\r\n\x1b[31mrederr\n", b"") == (
        passed.returncode, passed.stdout, passed.stderr,
    )  # fmt: skip
    assert (1, "out\n") == (failed.returncode, failed.stdout)
    assert "pikaci: test command exited with 7\n" == failed.stderr


@pytest.mark.incus
def test_the_commands_own_exit_code(pikaci: Command) -> None:
    """`--exit-code command`: the command's own, or one of a reserved range, for errors too."""
    own = ("run", "--exit-code", "command")
    pikaci.write(JOBS)

    assert 0 == pikaci(*own, "--", "true").returncode
    assert 7 == pikaci(*own, "--", "exit 7").returncode
    assert 240 == pikaci(*own, "slow").returncode
    assert 241 == pikaci(*own, "--", "true", INCUS_SOCKET="/nonexistent").returncode
    assert 242 == pikaci(*own, "no-such-job").returncode
    several = pikaci(*own)
    assert 242 == several.returncode
    assert "needs one job" in several.stderr


@pytest.mark.incus
def test_one_argument_is_a_shell_line_and_several_are_quoted(pikaci: Command) -> None:
    """What stands behind `--` arrives as it was meant."""
    line = pikaci("run", "--", "echo $((1 + 1)); echo 'a  b'")
    words = pikaci("run", "--", "printf", "%s|", "a  b", "$HOME", "'")

    assert (0, 0) == (line.returncode, words.returncode)
    shown = [
        pikaci("logs", row.split()[0]).stdout.split("\n", 1)[1]
        for row in pikaci("list", "--jobs").stdout.splitlines()
        if row.startswith("  ")
    ]
    assert ["a  b|$HOME|'|", "2\na  b\n"] == shown


@pytest.mark.incus
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_a_command_reaches_the_guest_as_it_was_typed(pikaci: Command, utf8: str) -> None:
    """As UTF-8, in a locale that is ASCII too."""
    done = pikaci(
        "run", "--", "printf", "%s", "grüße漢", LC_ALL="C", PYTHONUTF8=utf8, PYTHONCOERCECLOCALE="0"
    )

    assert (0, "grüße漢") == (done.returncode, done.stdout)


@pytest.mark.incus
def test_a_log_is_followed_while_it_grows(pikaci: Command) -> None:
    """A line is there soon after the guest printed it, and the follower ends with the job."""
    running = pikaci.start("run", "--", f"echo one; {AT_THE_GATE}; echo two")
    follower = None
    try:
        while "one" not in (running.stdout.readline() if running.stdout else ""):
            pass
        follower = pikaci.start("logs", "-f")
        assert follower.stdout is not None
        lines = [follower.stdout.readline() for _ in range(2)]
        alive = running.poll() is None
        pikaci.open_gate()
        rest = follower.stdout.read()
    finally:
        running.communicate(timeout=SECS)
        if follower:
            follower.communicate(timeout=SECS)

    assert lines[0].startswith("[pikaci] incus guest booted at ")
    assert ("one\n", True, "two\n") == (lines[1], alive, rest)
    assert follower is not None
    assert 0 == follower.returncode


@pytest.mark.incus
def test_a_guest_is_kept_on_failure_with_the_way_into_it(pikaci: Command) -> None:
    """The printed command opens a shell in it; deleting it by hand is fine too."""
    done = pikaci("run", "--keep-on-failure", "--", "echo left > /artifacts/x; exit 1")

    (kept,) = pikaci.leases()
    assert 1 == done.returncode
    assert f"incus exec --project pikaci local:{kept} -- bash" in done.stderr
    shell = ["incus", "exec", "--project", "pikaci", f"local:{kept}", "--", "cat", "/artifacts/x"]
    assert b"left\n" == subprocess.run(shell, capture_output=True, timeout=SECS).stdout
    delete = ["incus", "delete", "--force", "--project", "pikaci", f"local:{kept}"]
    subprocess.run(delete, check=True, timeout=SECS)


@pytest.mark.incus
def test_gc_frees_all_but_the_newest(pikaci: Command) -> None:
    """Old runs' files and entries go, and snapshots that nobody names."""
    for number in range(3):
        (pikaci.workspace / "file").write_text(str(number))
        pikaci("run", "--", "true")
    before = pikaci("gc", "--keep", "1", "--dry-run").stdout

    done = pikaci("gc", "--keep", "1")

    assert before.startswith("would delete 2 runs, 2 jobs, 2 snapshots and 0 outputs: ")
    assert done.stdout.startswith("deleted 2 runs, 2 jobs, 2 snapshots and 0 outputs: ")
    assert 1 == len(os.listdir(pikaci.root / "jobs"))
    assert 1 == len(os.listdir(pikaci.root / "snapshots"))
    assert 1 == len(json.loads(pikaci("list", "--output", "json").stdout))


@pytest.mark.incus
def test_doctor_finds_nothing_missing_here(pikaci: Command) -> None:
    """On a machine that is set up every row is there, and none is missing."""
    done = pikaci("doctor")

    assert 0 == done.returncode
    assert "MISSING" not in done.stdout
    for subject in ("daemon", "project", "storage pool", "guest image"):
        assert subject in done.stdout


USAGE = [
    (["run", "nope"], "no job 'nope'"),
    (["run", "--jobs", "0"], "--jobs"),
    (["run", "--output", "xml"], "--output"),
    (["run", "--file", "no.toml"], "no such job file"),
    (["run", "--workspace", "/no/such"], "/no/such"),
    (["run", "--"], "no command after"),
    (["run", "good", "--", "true"], "cannot be combined with a command"),
    (["run", "--", ""], "command"),
    (["fly"], "no command 'fly'"),
    (["logs", "nope"], "no journal"),
    (["status"], "no journal"),
    (["run", "--dry-run", "writable"], "does not support writable workspace jobs"),
]


@pytest.mark.parametrize(("args", "words"), USAGE, ids=[" ".join(args) for args, _ in USAGE])
def test_wrong_usage_is_told_and_touches_nothing(
    pikaci: Command, args: list[str], words: str
) -> None:
    """Exit code 2, the words on stderr, nothing on stdout, no state root."""
    pikaci.write(JOBS)

    done = pikaci(*args)

    assert (2, "") == (done.returncode, done.stdout)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not pikaci.root.exists()


def test_a_file_without_jobs_has_its_own_code(pikaci: Command) -> None:
    """Exit code 5."""
    pikaci.write("schema = 1\n")

    assert 5 == pikaci("run").returncode


def test_the_removed_mode_is_refused(pikaci: Command) -> None:
    """A variable of the past is an error that says so."""
    done = pikaci("run", PIKACI_REMOTE_LINUX_VM_INCUS_MODE="transfer")

    assert 2 == done.returncode
    assert "the modes were removed" in done.stderr


def test_a_dry_run_prints_the_commands_and_touches_nothing(pikaci: Command) -> None:
    """The very commands, with placeholders for what only a run knows."""
    pikaci.write(JOBS.replace('"echo fine"', '"echo fine"\nenv = { A = "1" }'))

    done = pikaci("run", "--dry-run", "good")

    for words in (
        "incus create --project pikaci",
        "PIKACI_INCUS_GUEST_COMMAND=echo fine",
        "/run/current-system/sw/bin/pikaci-incus-run",
        "incus delete --project pikaci --quiet --force",
        "<instance>",
        "<nonce>",
    ):
        assert words in done.stdout
    assert not pikaci.root.exists()


@pytest.mark.parametrize("line", ['memory = "900TiB"', 'disk = "900TiB"', "cpus = 1024"])
def test_more_than_the_host_has_is_one_clear_line(pikaci: Command, line: str) -> None:
    """Incus would start such a guest. Planned or run, it is refused, and nothing is made."""
    pikaci.write(JOBS.replace('"echo fine"', f'"echo fine"\n{line}'))

    for options in (["--dry-run"], []):
        done = pikaci("run", *options, "good")

        key, value = line.replace('"', "").split(" = ")
        assert 2 == done.returncode
        assert f"pikaci: {key} {value} of the job good is too much: the " in done.stderr
        assert f"-> write at most `{key} = " in done.stderr
        assert [] == list(pikaci.root.glob("jobs/*"))


@pytest.mark.parametrize(
    ("line", "told", "next_step"),
    [
        ('image = "pikaci/dve"', "there is no image pikaci/dve in", "did you mean `pikaci/dev`?"),
        ('network = "no-such"', "there is no network no-such on local", "-> none, or a managed"),
        ('instance_type = "virtual-machine"', "is of type container;", '-> set instance_type = "c'),
    ],
)
def test_what_the_host_does_not_have_is_one_clear_line(
    pikaci: Command, line: str, told: str, next_step: str
) -> None:
    """Planned or run, it is refused with exit code 2, and nothing is made."""
    pikaci.write(JOBS.replace('"echo fine"', f'"echo fine"\n{line}'))

    for options in (["--dry-run"], []):
        done = pikaci("run", *options, "good")

        assert 2 == done.returncode
        assert f"pikaci: {line.partition(' =')[0]} of the job good: " in done.stderr
        assert told in done.stderr
        assert next_step in done.stderr
        assert "incus create" not in done.stdout
        assert [] == list(pikaci.root.glob("jobs/*"))


def test_a_state_root_that_cannot_be_is_one_clear_line(pikaci: Command) -> None:
    """A file in its place."""
    pikaci.write(JOBS)
    pikaci.root.write_text("")

    done = pikaci("run", "good")

    assert 2 == done.returncode
    assert "cannot be a state root" in done.stderr
    pikaci.root.unlink()


def test_a_daemon_that_is_not_there_is_infrastructure(pikaci: Command, tmp_path: Path) -> None:
    """Told at once, with exit code 4, the way to find out more, and nothing submitted."""
    pikaci.write(JOBS)

    done = pikaci("run", "good", INCUS_SOCKET=str(tmp_path / "no.socket"))

    assert 4 == done.returncode
    assert "pikaci doctor" in done.stderr
    assert [] == json.loads(pikaci("list", "--output", "json").stdout)


@pytest.mark.incus
def test_on_a_terminal_a_command_cannot_steer_it(pikaci: Command) -> None:
    """A title or a cleared screen that the guest prints never gets out."""
    hostile = r"printf '\033]0;owned\007\033[2Jshown\n'; exit 1"
    master, slave = pty.openpty()
    running = subprocess.Popen(
        [PIKACI, "run", "--", hostile],
        cwd=pikaci.workspace,
        env={**pikaci.env, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while piece := os.read(master, 65536):
            seen += piece
    except OSError:
        pass  # the terminal's other end is closed
    code = running.wait(SECS)
    os.close(master)

    assert 1 == code
    assert b"shown\r\n" in seen
    assert b"owned" not in seen
    assert b"\x1b[2J" not in seen
