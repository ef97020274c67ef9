"""Specs: what `check` refuses, and with which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from states.environment import KEPT_BY_BASH, MAX_BYTES, MAX_VARIABLE_BYTES, total_size
from states.errors import SpecError, SpecErrors
from states.mistakes import mistakes
from states.rules import MAX_COMMAND_BYTES, MIN_MEMORY, MIN_PROCESSES, check, check_form
from states.spec import MAX_KEEP_SECS, InstanceType, JobSpec, Keep, Mount, SecretSource
from tests.samples import sample_shell_job

BAD: list[tuple[dict[str, Any], str]] = [
    ({"command": " \n"}, "command"),
    ({"command": "a\0b"}, "command"),
    ({"command": "\ud800"}, "command"),
    ({"command": "x" * (MAX_COMMAND_BYTES + 1)}, "command"),
    ({"command": "é" * (MAX_COMMAND_BYTES // 2 + 1)}, "command"),
    ({"timeout_secs": 0}, "timeout_secs"),
    ({"timeout_secs": True}, "timeout_secs"),
    ({"cpus": "2"}, "cpus"),
    ({"memory": "4"}, "memory"),
    ({"memory": "4GiB\n"}, "memory"),
    ({"image": "mine\n"}, "image"),
    ({"workspace_deps": ""}, "workspace_deps"),
    ({"artifacts": ["a"]}, "artifacts"),
    ({"image": "remote:x"}, "image"),
    ({"network": "a b"}, "network"),
    ({"description": "two\nlines"}, "description"),
    ({"env": {"PIKACI_X": "1"}}, "env.PIKACI_X"),
    ({"env": {"A": "\0"}}, "env.A"),
    *[({"env": {name: "1"}}, f"env.{name}") for name in sorted(KEPT_BY_BASH)],
    *[({"env": {name: "1"}}, "env") for name in ("", "1A", "A-B", "A B", "A\n", "Ä", "A" * 256)],
    ({"env": {"A": "x" * (MAX_VARIABLE_BYTES - 1)}}, "env.A"),
    ({"env": {"A": "é" * (MAX_VARIABLE_BYTES // 2)}}, "env.A"),
    ({"env": {f"V{n}": "x" * 100_000 for n in range(10)}}, "env"),
    ({"secrets": {"UID": SecretSource(env="A")}}, "secrets.UID"),
    ({"secrets": {"PIKACI_INCUS_NONCE": SecretSource(env="A")}}, "secrets.PIKACI_INCUS_NONCE"),
    ({"secrets": {"A": SecretSource(env="A")}, "env": {"A": "1"}}, "secrets.A"),
    ({"secrets": {"A": SecretSource()}}, "secrets.A"),
    ({"secrets": {"A": SecretSource(env="A", file="/a")}}, "secrets.A"),
    ({"secrets": {"A": SecretSource(file="a")}}, "secrets.A.file"),
    ({"secrets": {"A": SecretSource(file="/a\n")}}, "secrets.A.file"),
    ({"secrets": {"A": SecretSource(env="a b")}}, "secrets.A.env"),
    ({"secrets": {"A-B": SecretSource(env="A")}}, "secrets"),
    ({"artifacts": ("/etc/passwd",)}, "artifacts[0]"),
    ({"artifacts": ("ok", "a/../../b")}, "artifacts[1]"),
    ({"artifacts": ("",)}, "artifacts[0]"),
    ({"workspace_deps": "/a\x1b[2J"}, "workspace_deps"),
    ({"keep": "always"}, "keep"),
    ({"keep_secs": 60}, "keep_secs"),
    ({"keep": Keep.FAILURE, "keep_secs": 0}, "keep_secs"),
    ({"keep": Keep.FAILURE, "keep_secs": MAX_KEEP_SECS + 1}, "keep_secs"),
    *[
        ({"mounts": (Mount(source="/s", path=path),)}, "mounts[0].path")
        for path in ("mnt", "/", "//mnt", "/mnt/./a", "/mnt/../a", "/bin", "/root/x", "/lib64", "/run", "/run/x", "/workspace",
                     "/artifacts/x", "/mnt", "/home", "/mnt/pikaci-nix-store", "/a\nb")
    ],
    (
        {"mounts": (Mount(source="/s", path="/a"), Mount(source="/s", path="/a/"))},
        "mounts[1].path",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key"), BAD, ids=[f"{k}-{n}" for n, (_, k) in enumerate(BAD)])
def test_a_bad_value_is_refused_by_its_key(changes: dict[str, Any], key: str) -> None:
    """Constructors do not look; `check` does, and names the key."""
    with pytest.raises(SpecError) as caught:
        check(sample_shell_job(**changes))

    assert key == caught.value.key


@pytest.mark.parametrize("processes", [16, MIN_PROCESSES - 1])
def test_too_few_processes_are_refused_at_the_door_alone(processes: int) -> None:
    """The runner itself needs some. Journals hold jobs with fewer, which are still read."""
    spec = msgspec.convert({"command": "true", "processes": processes}, JobSpec)

    with pytest.raises(SpecError, match=f"processes {processes} is too few") as refused:
        check(spec)

    assert "64 to 1000000" == refused.value.resolution
    check_form(spec)
    check(msgspec.structs.replace(spec, processes=MIN_PROCESSES))
    check(msgspec.structs.replace(spec, instance_type=InstanceType.VIRTUAL_MACHINE))


@pytest.mark.parametrize("memory", ["1kB", "8MiB", "64MB", "63MiB"])
def test_too_little_memory_is_refused_at_the_door_alone(memory: str) -> None:
    """The runner itself needs some. Journals hold jobs with less, which are still read."""
    spec = msgspec.convert({"command": "true", "memory": memory}, JobSpec)

    with pytest.raises(SpecError, match=f"memory {memory} is too little") as refused:
        check(spec)

    assert "64MiB or more" == refused.value.resolution
    check_form(spec)
    check(msgspec.structs.replace(spec, memory=MIN_MEMORY))


def test_the_longest_command_passes() -> None:
    """The limit is in bytes, itself allowed, and what the guest contract says."""
    assert 131_000 == MAX_COMMAND_BYTES
    check(sample_shell_job(command="x" * MAX_COMMAND_BYTES))


def test_the_largest_variables_pass() -> None:
    """The limit of one counts its name, and is itself allowed; so is that of all."""
    longest = "x" * (MAX_VARIABLE_BYTES - len("A="))
    check(sample_shell_job(env={"A": longest}))
    fill = {f"V{n}": longest[1:] for n in range(7)}
    left = MAX_BYTES - total_size({**fill, "REST": ""})

    check(sample_shell_job(env={**fill, "REST": "x" * left}))
    with pytest.raises(SpecError, match=f"env has {MAX_BYTES + 1} bytes in total"):
        check(sample_shell_job(env={**fill, "REST": "x" * (left + 1)}))


def test_unknown_keys_have_the_nearest_or_the_known_ones_beside_them() -> None:
    """Of a job, of a mount and of a secret."""
    for table, told in (
        ({"command": "x", "cpu": 1}, "cpu is an unknown key: did you mean `cpus`?"),
        (
            {"command": "x", "mounts": [{"source": "/", "path": "/a", "rw": 1}]},
            "mounts[0].rw is an unknown key; allowed: path, source",
        ),
        (
            {"command": "x", "secrets": {"A": {"value": "1"}}},
            "secrets.A.value is an unknown key; allowed: env, file",
        ),
    ):
        assert [told] == [mistake.line() for mistake in mistakes(table, JobSpec)]


def test_a_document_is_refused_wherever_msgspec_refuses_it() -> None:
    """Whatever is in it: there is a mistake, and where there is none it can be read."""
    for value in (None, 5, [], "x", {"command": 1, "mounts": {}, "env": 3, "deadlines": []}):
        assert mistakes(value, JobSpec)
    assert not mistakes({"command": "x"}, JobSpec)


def test_all_mistakes_of_a_spec_are_told() -> None:
    """`key` is that of the first; `details` has a line for each."""
    with pytest.raises(SpecErrors, match="3 mistakes") as caught:
        check(JobSpec(command=" ", artifacts=("/x",), env={"PIKACI_X": "1"}))

    assert "command" == caught.value.key
    assert ["command", "env.PIKACI_X", "artifacts[0]"] == [
        line.partition(" ")[0] for line in caught.value.details.splitlines()
    ]


def test_a_missing_key_is_named() -> None:
    """A job without a command."""
    assert ["command is missing; allowed: text"] == [
        mistake.line() for mistake in mistakes({}, JobSpec)
    ]
