"""Directories of the host that no job may mount, however they are named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import jobfile
from orchestrator.errors import UsageError
from orchestrator.host_paths import MountRule
from states.errors import SpecError
from states.spec import JobSpec, Mount
from tests.samples import sample_shell_job

KEYS = ("workspace_deps", "workspace_build", "nix_store", "mounts[0].source")
PARTS = st.lists(st.sampled_from(["a", "ab", "b", "root"]), max_size=4)


def naming(path: str | Path, key: str = KEYS[-1]) -> JobSpec:
    """A job that mounts the directory by this key."""
    if key in KEYS[:3]:
        return sample_shell_job(**{key: str(path)})
    return sample_shell_job(mounts=(Mount(source=str(path), path="/mnt/data"),))


def refused(rule: MountRule, path: str | Path) -> bool:
    try:
        rule.check(naming(path))
    except SpecError:
        return True
    return False


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_held_to_the_rule(key: str) -> None:
    """The error has the key, the path, what is wrong with it, and what is allowed."""
    with pytest.raises(SpecError) as error:
        MountRule().check(naming("/var/lib/incus", key))

    assert key == error.value.key
    assert "'/var/lib/incus' is /var/lib/incus (Incus): a guest" in str(error.value)
    assert "a directory of data" in error.value.resolution


@pytest.mark.parametrize(
    ("path", "relation"),
    [
        ("/", "contains"),
        ("/var", "contains"),
        ("/var/lib", "contains"),
        ("/var/lib/incus/storage-pools", "lies below"),
        ("/proc/1/root", "lies below"),
        ("/sys", "is"),
        ("/dev/shm", "lies below"),
        ("/run/user/1000", "lies below"),
        ("/var/run", "is"),
        ("/var/lib/docker/volumes", "lies below"),
        ("/nix", "contains"),
    ],
)
def test_what_contains_or_lies_below_a_control_is_refused(path: str, relation: str) -> None:
    """By its name alone, too: it may not be there yet."""
    with pytest.raises(SpecError, match=f"'{path}' {relation} "):
        MountRule().check(naming(path))


@given(PARTS, PARTS)
def test_a_state_root_meets_what_is_above_and_below_it(root: list[str], source: list[str]) -> None:
    """And nothing beside it, whatever the names have in common."""
    ours, theirs = [f"/data/{'/'.join(parts)}".rstrip("/") for parts in (root, source)]
    shorter = min(len(root), len(source))

    assert refused(MountRule((Path(ours),)), theirs) == (root[:shorter] == source[:shorter])


@pytest.mark.parametrize("name", ["INCUS_DIR", "INCUS_SOCKET", "DOCKER_HOST", "PIKACI_STATE_ROOT"])
def test_places_that_a_variable_names_are_controls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Daemons can be elsewhere than usual."""
    assert not refused(MountRule(), tmp_path)
    scheme = "unix://" if name == "DOCKER_HOST" else ""
    monkeypatch.setenv(name, f"{scheme}{tmp_path}/there")

    assert refused(MountRule(), tmp_path)


def test_a_link_to_a_control_is_the_control(tmp_path: Path) -> None:
    """In a job file the error has the file and the key."""
    (tmp_path / "data").symlink_to("/var/lib")
    file = tmp_path / "pikaci.toml"
    mount = '{ source = "data", path = "/mnt/data" }'
    file.write_text(f'schema = 1\n[jobs.a]\ncommand = "true"\nmounts = [{mount}]\n')

    with pytest.raises(UsageError) as error:
        jobfile.select(jobfile.load(file), ())

    assert f"{file}: jobs.a.mounts[0].source '/var/lib' contains" in str(error.value)


def test_the_real_place_of_a_control_is_one_too(tmp_path: Path) -> None:
    """A state root that is reached by a link."""
    (tmp_path / "real/root").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    rule = MountRule((tmp_path / "link/root",))

    assert refused(rule, tmp_path / "real")
    assert refused(rule, tmp_path / "real/root")


def test_a_directory_with_a_socket_that_a_program_listens_on(tmp_path: Path) -> None:
    """It leads out of the guest. What a dead program left leads nowhere."""
    path = tmp_path / "deep"
    path.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "s.sock"))
        listener.listen()
        with pytest.raises(SpecError, match="a program listens on"):
            MountRule().check(naming(tmp_path))
        assert not refused(MountRule(), tmp_path / "other")

    assert (path / "s.sock").exists()
    assert not refused(MountRule(), tmp_path)


def test_only_what_is_below_an_allowed_directory(tmp_path: Path) -> None:
    """The error says what is, and what to type."""
    (tmp_path / "allowed/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("allowed")
    rule = MountRule(allowed=(tmp_path / "link",))

    rule.check(naming(tmp_path / "allowed"))
    rule.check(naming(tmp_path / "allowed/deep"))
    for other in (tmp_path, tmp_path / "allowed-too"):
        with pytest.raises(
            SpecError, match="is not a directory that jobs of this service may mount"
        ) as error:
            rule.check(naming(other))
        assert error.value.resolution.startswith(f"{tmp_path}/allowed; ")
        assert f"--allow-mounts {other}" in error.value.resolution


def test_an_operator_allows_no_control() -> None:
    """It is refused below what is allowed, too."""
    assert refused(MountRule(allowed=(Path("/"),)), "/run")


ALIASES = """
set -e
mkdir -p a/root/deep a/beside alias
mount {options}
exec {python} -c '
import sys; from pathlib import Path
from orchestrator.host_paths import MountRule
from states.spec import JobSpec, Mount
mount = Mount(source=str(Path(sys.argv[1]).absolute()), path="/mnt/data")
MountRule((Path("a/root").absolute(),)).check(JobSpec(command="true", mounts=(mount,)))
' {source} 2>&1
"""


@pytest.mark.parametrize(
    ("options", "source", "refusal"),
    [
        ("--bind a/root alias", "alias", "is "),
        ("--bind a/root/deep alias", "alias", "lies below "),
        ("--bind a alias", "alias", "contains "),
        ("--bind a alias", "alias/root/deep", "lies below "),
        ("--bind a alias; rm -r a/root", "alias", "contains "),
        ("--bind a/beside alias", "alias", ""),
        ("-t tmpfs none alias", "alias", ""),
        ("-t proc none alias", "alias", "is on proc"),
    ],
)
def test_another_mount_of_a_control_is_the_control(
    tmp_path: Path, options: str, source: str, refusal: str
) -> None:
    """A bind mount has another name and is the same directory."""
    script = ALIASES.format(options=options, python=sys.executable, source=source)
    done = subprocess.run(
        [*"unshare --user --map-root-user --mount --pid --fork bash -c".split(), script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (1 if refusal else 0) == done.returncode, done.stdout + done.stderr
    assert f"'{tmp_path}/{source}' {refusal}" in done.stdout if refusal else not done.stdout
