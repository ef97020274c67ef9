"""The commands that act on instances."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.fake_incus import programs, rules, show, words
from orchestrator.fake_incus.daemon import Call, Daemon, local
from orchestrator.fake_incus.model import Image, Instance
from orchestrator.fake_incus.words import NotFaked, Refused

ISOLATED_IDS = 65_536  # of an isolated map, unless its size is given
_ID_MAP = ("volatile.idmap.base", "security.idmap.size")


async def create(daemon: Daemon, call: Call) -> int:
    """`create IMAGE NAME`, with the instance's document on stdin."""
    if not call.command.args:
        return 0  # as Incus does, after printing its usage
    document = _document(await call.stdin.read())
    image_name, *names = (local(name) for name in call.command.args)
    image = daemon.store.image(call.command.project, image_name)
    if call.command.flag("vm") and image.type != "virtual-machine":
        raise Refused(f"Asked for a VM but image is of type {image.type}")
    project = daemon.store.project(call.command.project)
    config = {key: _text(value) for key, value in (document.get("config") or {}).items()}
    for pair in call.command.flags.get("config", []):
        key, _, value = pair.partition("=")
        config[key] = value
    # As in the real client, an empty list in the document means the default profile too.
    profiles = call.command.flags.get("profile") or document.get("profiles") or ["default"]
    if call.command.flag("no-profiles"):
        profiles = []
    name = (names or [""])[0]
    if not name:
        name = f"unnamed-badger-{len(project.instances) + 1}"
        await call.say(f"Instance name is: {name}")
    rules.check_name(name)
    instance = Instance(
        name=name,
        project=call.command.project,
        image=image.fingerprint,
        type=image.type,  # also without --vm
        description=document.get("description") or "",
        config=config,
        devices={
            name: {key: _text(value) for key, value in device.items()}
            for name, device in (document.get("devices") or {}).items()
        },
        profiles=list(profiles),
        created_at=daemon.now().isoformat(),
        files=dict(image.files),
    )
    rules.check_instance(daemon.store, instance)
    instance.config = {
        **{f"image.{key}": value for key, value in image.properties.items()},
        **instance.config,
        "volatile.base_image": image.fingerprint,
    }
    if instance.type == "container":
        # As asked for, whoever else has it.
        base = instance.config.get("security.idmap.base") or _free_ids(daemon, instance)
        instance.config["volatile.idmap.base"] = base
    project.instances[instance.name] = instance
    daemon.tell("instance-created", instance)
    _, devices = daemon.store.expanded(instance)
    if all(device["type"] != "nic" for device in devices.values()):
        call.errors += words.NO_NETWORK_NOTE.encode()
    return 0


def _free_ids(daemon: Daemon, instance: Instance) -> str:
    """The base of the id map that the daemon chooses: for an isolated one, of ids that none has."""
    if instance.config.get("security.idmap.isolated") != "true":
        return "0"
    projects = daemon.store.projects.values()
    every = [one for project in projects for one in project.instances.values()]
    return str(max((_ids_end(one) for one in every), default=_ids_end(instance)))


def _ids_end(instance: Instance) -> int:
    """The first id after the instance's map."""
    base, size = (instance.config.get(key, "") for key in _ID_MAP)
    return int(base or "0") + (int(size) if size.isdecimal() else ISOLATED_IDS)


async def launch(daemon: Daemon, call: Call) -> int:
    """`launch IMAGE NAME`: create, and start; if that fails, the instance stays."""
    await create(daemon, call)
    return await start_created(daemon, call)


async def start_created(daemon: Daemon, call: Call) -> int:
    """The second half of `launch IMAGE NAME`."""
    _, name = call.command.args
    command = replace(call.command, args=(name,))
    return await start(daemon, replace(call, command=command))


async def start(daemon: Daemon, call: Call) -> int:
    """`start NAME...`"""
    for instance in _named(daemon, call):
        if instance.status == "Running":
            raise Refused(words.ALREADY_RUNNING)
        rules.check_start(daemon.store, instance)
        daemon.start(instance)
    return 0


async def stop(daemon: Daemon, call: Call) -> int:
    """`stop NAME...`; a fake guest always obeys, with or without force."""
    for instance in _named(daemon, call):
        if instance.status != "Running":
            raise Refused(words.ALREADY_STOPPED)
        daemon.stop(instance)
    return 0


async def delete(daemon: Daemon, call: Call) -> int:
    """`delete NAME...`; running instances need `--force`."""
    for name in map(local, call.command.args):
        try:
            daemon.store.instance(call.command.project, name)
        except Refused as missing:
            raise Refused(words.looked_first(name, str(missing))) from None
    for instance in _named(daemon, call):
        if instance.status == "Running" and not call.command.flag("force"):
            raise Refused(words.MUST_STOP_FIRST)
        daemon.delete(instance)
    return 0


async def publish(daemon: Daemon, call: Call) -> int:
    """`publish NAME REMOTE: KEY=VALUE...`: an image of a stopped instance."""
    name, *more = call.command.args
    pairs = dict(word.split("=", 1) for word in more if "=" in word)
    instance = daemon.store.instance(call.command.project, local(name))
    if instance.status == "Running":
        raise Refused(words.MUST_STOP_TO_PUBLISH)
    images = daemon.store.images(call.command.project)
    published = Image(
        fingerprint="",
        # Those of the image that it was made from, unless they are given.
        properties={
            **{
                key.removeprefix("image."): value
                for key, value in instance.config.items()
                if key.startswith("image.")
            },
            **pairs,
        },
        type=instance.type,
        size=sum(map(len, instance.files.values())),
        uploaded_at=daemon.now().isoformat(),
        files=dict(instance.files),
    )
    # Not of the contents alone: Incus puts the time into an image.
    content = repr((instance.name, len(images), published)).encode()
    published.fingerprint = hashlib.sha256(content).hexdigest()
    images[published.fingerprint] = published
    await call.say(f"Instance published with fingerprint: {published.fingerprint}")
    return 0


async def exec_(daemon: Daemon, call: Call) -> int:
    """`exec NAME -- COMMAND...`; the command is killed when its client disconnects.

    What the command detached continues, as the runner detaches the job. When the daemon dies,
    everything continues.
    """
    if not call.command.rest:
        raise NotFaked("incus exec without -- before the command")
    (instance,) = _named(daemon, call)
    guest = daemon.guest(instance)
    variables = call.command.flags.get("env", [])
    process = programs.start(guest, programs.recognise(call.command.rest, call.stdin, variables))
    try:
        await process.output.copy_to(call.write)
        await process.ended.wait()
    finally:
        if daemon.alive:
            process.kill()
    call.errors += process.errors
    assert process.exit_code is not None
    if process.exit_code in words.ON_EXIT_CODE:
        call.errors += f"Error: {words.ON_EXIT_CODE[process.exit_code]}\n".encode()
    return process.exit_code


async def monitor(daemon: Daemon, call: Call) -> int:
    """`monitor --type=lifecycle --format=json`, until its client disconnects."""
    if (call.command.flag("type"), call.command.flag("format")) != ("lifecycle", "json"):
        raise NotFaked("incus monitor except for --type=lifecycle --format=json")
    await daemon.listen(call.command.project, call.write)
    return 0


async def list_(daemon: Daemon, call: Call) -> int:
    """`list [FILTER...]`, as csv or json."""
    projects = daemon.store.projects
    chosen = projects if call.command.flag("all-projects") else [call.command.project]
    filters = [local(word) for word in call.command.args]
    found = [
        instance
        for project in chosen
        if project in projects
        for _, instance in sorted(projects[project].instances.items())
        if all(_matches(instance, word) for word in filters if word)
    ]
    match call.command.flag("format", "table"):
        case "json":
            await call.say(json.dumps([show.instance(daemon.store, known) for known in found]))
        case "csv":
            for known in found:
                await call.say(show.row(known, call.command.flag("columns", "nst")))
        case other:
            raise NotFaked(f"incus list --format {other}")
    return 0


async def info(daemon: Daemon, call: Call) -> int:
    """`info`: whether the server answers; `info NAME`: whether the instance runs."""
    if not call.command.args or not local(call.command.args[0]):
        await call.say("api_status: stable\nauth: trusted\nenvironment:\n  server: incus")
        return 0
    (instance,) = _named(daemon, call)
    await call.say(f"Name: {instance.name}\nStatus: {instance.status.upper()}")
    return 0


async def pull(daemon: Daemon, call: Call) -> int:
    """`file pull NAME/PATH TARGET`, a file or `-`; also from a stopped instance."""
    source, target = call.command.args
    name, _, path = local(source).partition("/")
    instance = daemon.store.instance(call.command.project, name)
    if f"/{path}" not in instance.files:
        raise Refused(words.NO_FILE)
    content = instance.files[f"/{path}"]
    if target == "-":
        await call.write(content)
    else:
        into = Path(target)
        (into / Path(path).name if into.is_dir() else into).write_bytes(content)
    return 0


def _named(daemon: Daemon, call: Call) -> list[Instance]:
    project = call.command.project
    return [daemon.store.instance(project, local(name)) for name in call.command.args]


def _document(stdin: bytes) -> dict[str, Any]:
    """Parse the instance's document; the fake reads only YAML that is also JSON."""
    if not stdin.strip():
        return {}
    try:
        document = json.loads(stdin)
    except ValueError:
        raise NotFaked("a document on stdin that is YAML, but not JSON") from None
    assert isinstance(document, dict)
    return document


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _matches(instance: Instance, word: str) -> bool:
    key, equals, value = word.partition("=")
    if not equals:
        return instance.name.startswith(key)
    if key in ("status", "type", "name"):
        return str(getattr(instance, key)).lower() == value.lower()
    return instance.config.get(key) == value
