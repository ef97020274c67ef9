"""What cannot be done is one clear line, and nothing was touched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli_jobs import JOBS
from tests.integration.command import Command


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


USAGE = [
    (["run", "nope"], "no job 'nope'"),
    (["run", "--jobs", "0"], "--jobs"),
    (["run", "--output", "xml"], "--output"),
    (["run", "--file", "no.toml"], "no such job file"),
    (["run", "--workspace", "/no/such"], "/no/such"),
    (["run", "--log", "stdout", "--output", "json", "good"], "use --log stderr"),
    (["run", "--log", "stderr", "-q", "good"], "--log and --quiet"),
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
        "incus launch --project pikaci",
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
        assert "incus launch" not in done.stdout
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
