"""What pikaci relies on in Incus: the same tests against the fake, its program, and a daemon.

Where they differ the real one is right, and the fake is mended.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from orchestrator.incus import Completed, Deadline
from orchestrator.incus.errors import (
    AlreadyDone,
    DeadlinePassed,
    ImageNotFound,
    IncusError,
    InstanceNotFound,
    InstanceNotRunning,
    InstanceRunning,
    NameTaken,
)
from orchestrator.incus.instances import instance_status
from tests.calls import call
from tests.integration.lab import IMAGE, PROJECT, SECS, Lab, disk, on_the_program_too, said

EVERY_BYTE = bytes(range(256)) * 300


@on_the_program_too
async def test_name_is_taken(lab: Lab) -> None:
    """A second create under one name is told from every other failure."""
    name = lab.name()
    await lab.create(name)
    with pytest.raises(NameTaken):
        await lab.create(name)

    assert "Stopped" == (await lab.instance(name))["status"]


@on_the_program_too
async def test_start_and_stop_twice(lab: Lab) -> None:
    """What is done already is no failure of another kind."""
    name = await lab.started()
    with pytest.raises(AlreadyDone):
        await lab.run("start", "--quiet", f"local:{name}")
    assert "Running" == (await lab.instance(name))["status"]
    assert "Running" == await instance_status(lab.incus, name, deadline=Deadline(SECS))

    await lab.run("stop", "--quiet", "--force", f"local:{name}")
    with pytest.raises(AlreadyDone):
        await lab.run("stop", "--quiet", "--force", f"local:{name}")
    assert "Stopped" == (await lab.instance(name))["status"]


@on_the_program_too
async def test_delete_running_and_twice(lab: Lab) -> None:
    """A running instance is deleted by force alone; a name without one is its own type."""
    name = await lab.started()
    with pytest.raises(InstanceRunning) as error:
        await lab.run("delete", "--quiet", f"local:{name}")
    assert said(error).startswith("The instance is currently running")

    await lab.run("delete", "--quiet", "--force", f"local:{name}")
    with pytest.raises(InstanceNotFound):
        await lab.run("delete", "--quiet", "--force", f"local:{name}")


@pytest.mark.parametrize("verb", ["start", "stop", "delete", "info", "exec", "file pull"])
async def test_missing_instance(lab: Lab, verb: str) -> None:
    """Every command says of a missing instance that it was not found."""
    name = f"local:{lab.name()}"
    args = {"exec": (name, "--", "true"), "file pull": (f"{name}/etc/hostname", "-")}
    with pytest.raises(InstanceNotFound):
        await lab.run(*verb.split(), *args.get(verb, (name,)))


@pytest.mark.parametrize(
    ("argv", "exit_code", "stderr"),
    [
        (["true"], 0, b""),
        (["false"], 1, b""),
        (["sh", "-c", "exit 7"], 7, b""),
        (["sh", "-c", "exit 255"], 255, b""),
        (["no-such-program"], 127, b"Error: Command not found\n"),
        (["sh", "-c", "exit 127"], 127, b"Error: Command not found\n"),
        (["env", "A=b c", "true"], 0, b""),
    ],
)
async def test_exec_passes_the_exit_code(
    lab: Lab, argv: list[str], exit_code: int, stderr: bytes
) -> None:
    """An exec ends as its command did; 127 has words of the client beside it."""
    name = await lab.started()
    done = await lab.exec(name, *argv)

    assert (exit_code, b"", stderr) == (done.exit_code, done.stdout, done.stderr)


@on_the_program_too
async def test_exec_is_byte_exact(lab: Lab) -> None:
    """Every byte of stdin arrives, and every byte of stdout, whole or through a sink."""
    name = await lab.started()
    whole = await lab.exec(name, "cat", stdin=EVERY_BYTE)
    chunks: list[bytes] = []

    async def sink(chunk: bytes) -> None:
        chunks.append(chunk)

    sunk = await lab.exec(name, "cat", stdin=EVERY_BYTE, sink=sink)

    assert EVERY_BYTE == whole.stdout
    assert (b"", EVERY_BYTE) == (sunk.stdout, b"".join(chunks))


async def test_exec_needs_a_running_instance(lab: Lab) -> None:
    """An exec in a stopped instance says that it is not running."""
    name = lab.name()
    await lab.create(name)
    with pytest.raises(InstanceNotRunning):
        await lab.run("exec", f"local:{name}", "--", "true")


@on_the_program_too
async def test_mount_is_read_only(lab: Lab, tmp_path: Path) -> None:
    """A read-only share can be read in the guest, and a write fails and changes nothing."""
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "file").write_bytes(EVERY_BYTE)
    share = disk(str(tmp_path / "share"), "/workspace/snapshot", readonly="true", shift="true")
    name = await lab.started(devices={"pikaci-snapshot": share})
    read = await lab.exec(name, "cat", "/workspace/snapshot/file")
    written = await lab.exec(name, "tee", "/workspace/snapshot/new", stdin=b"x")

    assert EVERY_BYTE == read.stdout
    assert 1 == written.exit_code
    assert b"Read-only file system" in written.stderr
    assert ["file"] == [path.name for path in (tmp_path / "share").iterdir()]


@on_the_program_too
async def test_file_pull_from_a_stopped_instance(lab: Lab, tmp_path: Path) -> None:
    """What a guest wrote can be read after it stopped, and after it started again."""
    name = await lab.started()
    await lab.exec(name, "tee", "/root/left", stdin=EVERY_BYTE)
    await lab.run("stop", "--quiet", "--force", f"local:{name}")
    printed = await lab.run("file", "pull", "--quiet", f"local:{name}/root/left", "-")
    await lab.run("file", "pull", "--quiet", f"local:{name}/root/left", str(tmp_path / "copy"))
    with pytest.raises(IncusError) as error:
        await lab.run("file", "pull", "--quiet", f"local:{name}/root/none", "-")
    await lab.run("start", "--quiet", f"local:{name}")

    assert EVERY_BYTE == printed.stdout
    assert EVERY_BYTE == (tmp_path / "copy").read_bytes()
    assert "file does not exist" == said(error)
    assert EVERY_BYTE == (await lab.exec(name, "cat", "/root/left")).stdout


@on_the_program_too
async def test_list_by_key(lab: Lab) -> None:
    """`list` filters by the whole value of a user's key, and by the beginning of a name."""
    one, ten = lab.name("-q1"), lab.name("-q10")
    await lab.create(one, config={"user.pikaci.job": "j1"})
    await lab.create(ten, config={"user.pikaci.job": "j10"})
    await lab.run("start", "--quiet", f"local:{ten}")
    mine = f"user.pikaci.owner={lab.owner}"
    columns = ("--format", "csv", "--columns", "n,s,t,user.pikaci.job")
    rows = [f"{one},STOPPED,CONTAINER,j1", f"{ten},RUNNING,CONTAINER,j10"]
    documents = json.loads((await lab.run("list", "--format", "json", mine)).stdout)
    by_key = await lab.run("list", "--format", "csv", "-c", "n", mine, "user.pikaci.job=j1")
    no_key = await lab.run("list", "--format", "csv", "-c", "n", mine[:-1])
    by_name = await lab.run("list", "--format", "csv", "-c", "n", f"local:{lab.owner}-0-q1")

    assert rows == sorted((await lab.run("list", *columns, mine)).stdout.decode().splitlines())
    assert {one: "Stopped", ten: "Running"} == {one["name"]: one["status"] for one in documents}
    assert {lab.owner} == {one["config"]["user.pikaci.owner"] for one in documents}
    assert f"{one}\n".encode() == by_key.stdout
    assert b"" == no_key.stdout
    assert f"{one}\n".encode() == by_name.stdout


@on_the_program_too
async def test_query_lists_a_project(lab: Lab) -> None:
    """One query tells name, status and keys of every instance of a project, and of no other."""
    name = await lab.started()
    here = await lab.query("/1.0/instances", recursion="1")
    elsewhere = await lab.query("/1.0/instances", recursion="1", project="default")
    addresses = await lab.query("/1.0/instances")
    mine = [one for one in here if one["config"].get("user.pikaci.owner") == lab.owner]

    assert [(name, "Running")] == [(one["name"], one["status"]) for one in mine]
    assert name not in [one["name"] for one in elsewhere]
    assert f"/1.0/instances/{name}?project={PROJECT}" in addresses
    assert [] == await lab.query("/1.0/instances", recursion="1", project="no-such-project")
    with pytest.raises(IncusError, match="Project not found"):
        await lab.query(f"/1.0/instances/{name}", project="no-such-project")


async def test_query_takes_no_project_flag(lab: Lab) -> None:
    """The project of a query stands in its path: the flag is refused."""
    with pytest.raises(IncusError) as error:
        await lab.run("query", "/1.0/instances")

    assert "--project cannot be used with the query command" == said(error)


@on_the_program_too
async def test_patch_adds_to_the_config(lab: Lab) -> None:
    """A PATCH changes the keys it names and leaves the others; unknown keys are refused."""
    name = lab.name()
    await lab.create(name)
    path = f"/1.0/instances/{name}"
    patch = json.dumps({"config": {"user.pikaci.job": "j1"}})
    await lab.query(path, "--request", "PATCH", "--data", patch)
    with pytest.raises(IncusError) as error:
        await lab.query(path, "--request", "PATCH", "--data", '{"config": {"foo": "1"}}')
    config = (await lab.instance(name))["config"]

    assert ("j1", lab.owner) == (config["user.pikaci.job"], config["user.pikaci.owner"])
    assert "Invalid config: Unknown configuration key: foo" == said(error)


async def test_an_instance_deletes_itself(lab: Lab) -> None:
    """One that is made ephemeral while it runs is gone after a stop that nobody waits for."""
    name = await lab.started()
    path = f"/1.0/instances/{name}"
    stop = json.dumps({"action": "stop", "force": True})
    await lab.query(path, "-X", "PATCH", "-d", '{"ephemeral": true}')
    before = await lab.instance(name)
    await lab.query(f"{path}/state", "-X", "PUT", "-d", stop)
    with trio.fail_after(SECS):
        with pytest.raises(InstanceNotFound):
            while True:
                await lab.query(path)
                await trio.sleep(0.05)

    assert ("Running", True, lab.owner) == (
        before["status"],
        before["ephemeral"],
        before["config"]["user.pikaci.owner"],
    )


@on_the_program_too
async def test_projects_are_apart(lab: Lab) -> None:
    """An instance and an image of one project are not found in another, nor in none."""
    name = lab.name()
    await lab.create(name)
    for project, missing in {
        "default": "Instance not found",
        "no-such-project": "Project not found",
    }.items():
        other = lab.in_project(project)
        with pytest.raises(IncusError, match=missing):
            await call(other, "delete", "--force", f"local:{name}", deadline_secs=SECS)
        with pytest.raises(ImageNotFound):
            await call(other, "create", f"local:{IMAGE}", f"local:{name}", deadline_secs=SECS)
        listed = await call(other, "list", "--format", "csv", "-c", "n", name, deadline_secs=SECS)
        assert b"" == listed.stdout

    assert "Stopped" == (await lab.instance(name))["status"]


async def test_killed_client_kills_the_command(lab: Lab) -> None:
    """The command of an exec is killed with its client: what must last has to detach itself."""
    name = await lab.started()
    slow = ("sh", "-c", "sleep 1; echo done > /root/done; sleep 2")
    with pytest.raises(DeadlinePassed):
        await call(lab.incus, "exec", f"local:{name}", "--", *slow, deadline_secs=0.5)
    await lab.exec(name, "sleep", "2")

    assert 1 == (await lab.exec(name, "cat", "/root/done")).exit_code


@pytest.mark.parametrize("verb", ["stop", "delete"])
async def test_instance_goes_under_an_exec(lab: Lab, verb: str) -> None:
    """An exec whose instance goes ends like a killed command, without a word."""
    name = await lab.started()
    ended: list[Completed] = []
    begun = trio.Event()

    async def sink(chunk: bytes) -> None:
        begun.set()

    async def wait() -> None:
        ended.append(await lab.exec(name, "sh", "-c", "echo begun; sleep 50", sink=sink))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await begun.wait()
        await lab.run(verb, "--quiet", "--force", f"local:{name}")

    assert ended[0].exit_code in (137, 143)
    assert b"" == ended[0].stderr


async def test_monitor_tells_what_happens(lab: Lab) -> None:
    """An object a line, with action, name and project, while the client lives."""
    heard = b""

    async def hear(chunk: bytes) -> None:
        nonlocal heard
        heard += chunk

    def actions(name: str) -> list[str]:
        *lines, _ = heard.split(b"\n")
        events = [json.loads(line)["metadata"] for line in lines if line]
        # Not every event is about something with a name: that of an image has none.
        ours = [event for event in events if event.get("name") == name]
        assert {PROJECT} >= {event["project"] for event in ours}
        return [event["action"] for event in ours]

    async def listen() -> None:
        await lab.run("monitor", "--type=lifecycle", "--format=json", "local:", sink=hear)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        with trio.fail_after(SECS):
            while not any(actions(name) for name in lab.made):  # until it listens
                await lab.create(lab.name())
            name = await lab.started()
            await lab.run("delete", "--quiet", "--force", f"local:{name}")
            while "instance-deleted" not in actions(name):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()

    expected = ["instance-created", "instance-started", "instance-stopped", "instance-deleted"]
    assert expected == actions(name)
