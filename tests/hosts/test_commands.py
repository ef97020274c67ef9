"""`pikaci host`, and what other commands say of a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hosts.far_host import NAME, FarHost
from tests.integration.command import AT_THE_GATE, Command

pytestmark = pytest.mark.incus


def test_a_host_is_added_checked_listed_and_removed(far: FarHost, pikaci: Command) -> None:
    """What its owner wrote into the file stays as it is."""
    path = far.base / "hosts.toml"
    before = f"# mine\n{path.read_text()}jobs = 3 # few\n"
    path.write_text(before)
    words = ("--ssh", f"{far.user}@127.0.0.1", "--port", str(far.port))

    added = pikaci("host", "add", "two", *words, "--identity", str(far.base / "key"))

    assert 0 == added.returncode, added
    assert path.read_text().startswith(before)
    assert "as good as root" in added.stdout
    listed = json.loads(pikaci("host", "list", "--output", "json").stdout)
    assert ["local", NAME, "two"] == [one["name"] for one in listed]
    assert far.port == listed[2]["settings"]["port"]
    assert 2 == pikaci("host", "add", "two", *words).returncode

    assert 0 == pikaci("host", "remove", NAME).returncode
    assert "# mine" in path.read_text()
    assert ["local", "two"] == [
        line.split()[0] for line in pikaci("host", "list").stdout.splitlines()
    ]
    assert 2 == pikaci("host", "remove", NAME).returncode


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "Build", "--ssh", "b"), "not a valid name"),
        (("add", "local", "--ssh", "b"), "this machine"),
        (("add", "b"), "ssh is missing"),
        (("add", "b", "--ssh", "-oProxyCommand=x"), "hosts.b.ssh"),
        (("add", "b", "--remote", "r", "--ssh", "s"), "one of the two"),
        (("add", "b", "--remote", "r", "--port", "9"), "needs `ssh`"),
        (("add", "b", "--ssh", "b", "--directory", "relative"), "an absolute path"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    command = Command(tmp_path)
    path = tmp_path / "etc/hosts.toml"

    done = command("host", *words, PIKACI_HOSTS=str(path))

    assert 2 == done.returncode, done
    assert said in done.stderr
    assert not path.parent.exists()


def test_without_a_file_there_is_this_machine(tmp_path: Path) -> None:
    """A host that is named all the same is a mistake, which names the file."""
    command = Command(tmp_path)
    path = tmp_path / "etc/hosts.toml"

    listed = command("host", "list", PIKACI_HOSTS=str(path))
    checked = command("host", "check", "build", PIKACI_HOSTS=str(path))

    assert (0, ["local"]) == (listed.returncode, listed.stdout.split()[:1]), listed
    assert 2 == checked.returncode
    assert f"there is no host 'build' in {path}" in checked.stderr


def test_doctor_checks_both_ends(far: FarHost, pikaci: Command) -> None:
    done = pikaci("doctor", "--output", "json")
    assert 0 == done.returncode, done
    subjects = [row["subject"] for row in json.loads(done.stdout)]
    assert {"state root", "journal", "ssh", "directory", "daemon", "guest image"} <= set(subjects)
    assert "guests' ids" not in subjects  # those are of this machine

    far.stop()
    lost = pikaci("doctor", "--output", "json")
    assert 4 == lost.returncode
    assert "connection" == json.loads(lost.stdout)[-1]["subject"]


def test_an_image_is_checked_there(far: FarHost, pikaci: Command) -> None:
    """The guest mounts a directory of that host."""
    checked = pikaci("image", "check", "pikaci/dev")

    assert 0 == checked.returncode, checked
    assert "pikaci/dev keeps the contract" in checked.stdout
    assert ["image-check-1"] == [tree.name for tree in (far.directory / "trees").iterdir()]
    far.stop()
    lost = pikaci("image", "list")
    assert 4 == lost.returncode
    assert NAME in lost.stderr.splitlines()[0]


def test_setup_changes_nothing_without_being_told(far: FarHost, pikaci: Command) -> None:
    far.settings(project="pikaci-not-there", pool="pikaci-not-there")

    done = pikaci("setup")

    assert 2 == done.returncode, done
    for words in ("the project pikaci-not-there", "the storage pool pikaci-not-there", "--yes"):
        assert words in done.stderr
    assert 2 == pikaci("setup").returncode


def test_trees_that_no_job_needs_are_collected(far: FarHost, pikaci: Command) -> None:
    """Only when their leases have ended, which is hours after the job."""
    assert 0 == pikaci("run", "--", "true").returncode
    (tree,) = (far.directory / "trees").iterdir()

    assert 0 == pikaci("gc", "--older-than", "1m").returncode
    assert tree.exists()
    for lease in tree.glob("until-*"):
        lease.rename(tree / "until-1")
    assert "would delete 1 tree" in pikaci("gc", "-n").stdout
    done = pikaci("gc")
    assert "deleted 1 tree on other hosts" in done.stdout, done
    assert not tree.exists()


@pytest.mark.parametrize(("off", "word"), [("+1 hour", "ahead of"), ("-1 hour", "behind")])
def test_a_clock_there_that_is_off_ends_nothing_early_and_leaks_nothing(
    far: FarHost, pikaci: Command, off: str, word: str
) -> None:
    """`date` there is all that pikaci reads of that clock: the leases of trees are by it."""
    programs = far.base / "off"
    programs.mkdir(mode=0o755)
    (programs / "date").write_text(f"#!/bin/sh\nexec /bin/date -d '{off}' \"$@\"\n")
    (programs / "date").chmod(0o755)
    far.restart(f"SetEnv PATH={programs}:/usr/bin:/bin")

    started = pikaci.run_until("running", "run", "--", f"{AT_THE_GATE}; ls; echo done")
    swept = pikaci("gc", "--older-than", "1m", "--keep", "0")
    pikaci.open_gate()
    out, err = started.communicate()

    assert (0, "done\n") == (started.returncode, out), err
    assert 0 == swept.returncode, swept
    (tree,) = (far.directory / "trees").iterdir()
    assert 0 == pikaci("gc", "--older-than", "1m").returncode
    assert tree.exists()
    checked = pikaci("host", "check", NAME)
    assert 0 == checked.returncode, checked
    assert f"s {word} ours" in checked.stdout
    for lease in tree.glob("until-*"):
        lease.rename(tree / "until-1")
    assert "deleted 1 tree on other hosts" in pikaci("gc").stdout


def test_a_dry_run_shows_where_trees_will_be(far: FarHost, pikaci: Command) -> None:
    done = pikaci("run", "-n", "--", "true")
    assert 0 == done.returncode, done
    assert f"{far.directory}/trees/<hash>/tree" in done.stdout
    assert not (far.directory / "trees").exists()
