"""`incus query`: the few parts of the REST API that pikaci uses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from orchestrator.fake_incus import rules, show, words
from orchestrator.fake_incus.daemon import Call, Daemon, local
from orchestrator.fake_incus.model import STATUS_CODES, Image, Project
from orchestrator.fake_incus.words import NotFaked, Refused

Body = dict[str, Any]


async def query(daemon: Daemon, call: Call) -> int:
    """`query [--request METHOD] [--data JSON] PATH`; the project is in the path's query string."""
    url = urlsplit(local(call.command.args[0]))
    asked = {key: values[-1] for key, values in parse_qs(url.query).items()}
    project = asked.pop("project", "default")
    recursion = asked.pop("recursion", "0")
    everywhere = asked.pop("all-projects", "false") == "true"
    method = call.command.flag("request", "GET")
    body: Body = json.loads(call.command.flag("data", "{}"))
    if asked:
        raise NotFaked(f"incus query {url.path}?{url.query}")
    for known_method, pattern, answer in _ROUTES:
        match = re.fullmatch(pattern, url.path)
        if match is None or method != known_method:
            continue
        name = unquote("".join(match.groups()))
        if everywhere:
            listed = (answer(daemon, one, name, body) for one in daemon.store.projects)
            document: Any = list(chain.from_iterable(listed))
        else:
            document = answer(daemon, project, name, body)
        if isinstance(document, list) and recursion != "1":
            document = [_address(url.path, project, known) for known in document]
        if document is not None:
            await call.say(msgspec.json.encode(document).decode())
        return 0
    raise NotFaked(f"incus query --request {method} {url.path}")


def _address(path: str, project: str, known: Body) -> str:
    name = quote(known.get("name") or known["fingerprint"], safe="")
    return f"{path}/{name}" + ("" if project == "default" else f"?project={project}")


def _server(daemon: Daemon, project: str, name: str, body: Body) -> object:
    return {
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted",
        "environment": {
            "server": "incus",
            "server_version": "6.0.4",
            "project": project,
            "server_clustered": daemon.store.machine.clustered,
            "driver": daemon.store.machine.driver,
            "storage_supported_drivers": [
                {"Name": "dir", "Version": "1", "Remote": False},
                {"Name": "btrfs", "Version": "6.2", "Remote": False},
            ],
        },
    }


def _machine(daemon: Daemon, project: str, name: str, body: Body) -> object:
    machine = daemon.store.machine
    return {"cpu": {"total": machine.cpus}, "memory": {"total": machine.memory_bytes}}


def _images(daemon: Daemon, project: str, name: str, body: Body) -> object:
    return [show.image(image) for image in daemon.store.images(project).values()]


def _image(daemon: Daemon, project: str, name: str, body: Body) -> object:
    for fingerprint, image in daemon.store.images(project).items():
        if fingerprint.startswith(name):
            return show.image(image)
    raise Refused(words.image_not_found(name))


def _delete_image(daemon: Daemon, project: str, name: str, body: Body) -> object:
    if daemon.store.images(project).pop(name, None) is None:
        raise Refused(words.IMAGE_NOT_FOUND)
    return None


def _alias(daemon: Daemon, project: str, name: str, body: Body) -> object:
    return show.alias(_aliased(daemon, project, name), name)


def _aliases(daemon: Daemon, project: str, name: str, body: Body) -> object:
    images = daemon.store.images(project).values()
    return [show.alias(image, alias) for image in images for alias in image.aliases]


def _add_alias(daemon: Daemon, project: str, name: str, body: Body) -> object:
    if any(body["name"] in image.aliases for image in daemon.store.images(project).values()):
        raise Refused(words.alias_taken(body["name"]))
    _target(daemon, project, body).aliases.append(body["name"])
    return None


def _move_alias(daemon: Daemon, project: str, name: str, body: Body) -> object:
    image = _aliased(daemon, project, name)
    target = _target(daemon, project, body)
    image.aliases.remove(name)
    target.aliases.append(name)
    return None


def _delete_alias(daemon: Daemon, project: str, name: str, body: Body) -> object:
    _aliased(daemon, project, name).aliases.remove(name)
    return None


def _aliased(daemon: Daemon, project: str, alias: str) -> Image:
    for image in daemon.store.images(project).values():
        if alias in image.aliases:
            return image
    raise Refused(words.IMAGE_ALIAS_NOT_FOUND)


def _target(daemon: Daemon, project: str, body: Body) -> Image:
    images = daemon.store.images(project)
    if body["target"] not in images:
        raise Refused(words.IMAGE_NOT_FOUND)
    return images[body["target"]]


def _instances(daemon: Daemon, project: str, name: str, body: Body) -> object:
    known = daemon.store.projects.get(project, Project()).instances
    return [show.instance(daemon.store, instance) for _, instance in sorted(known.items())]


def _instance(daemon: Daemon, project: str, name: str, body: Body) -> object:
    daemon.store.project(project)
    return show.instance(daemon.store, daemon.store.instance(project, name))


def _patch_instance(daemon: Daemon, project: str, name: str, body: Body) -> object:
    """What is named is changed, all of it or nothing; a guest that runs gets its disks at once."""
    instance = daemon.store.instance(project, name)
    changed = msgspec.structs.replace(
        instance,
        config=instance.config | body.get("config", {}),
        devices=instance.devices | body.get("devices", {}),
        description=body.get("description", instance.description),
    )
    rules.check_change(daemon.store, changed)
    instance.config, instance.devices = changed.config, changed.devices
    instance.description = changed.description
    instance.ephemeral = body.get("ephemeral", instance.ephemeral)
    if instance.status == "Running" and "devices" in body:
        daemon.guest(instance).plug(instance.devices)
    return None


def _state(daemon: Daemon, project: str, name: str, body: Body) -> object:
    status = daemon.store.instance(project, name).shown_status
    return {"status": status, "status_code": STATUS_CODES[status]}


def _put_state(daemon: Daemon, project: str, name: str, body: Body) -> object:
    """A forced stop, which nobody waits for."""
    instance = daemon.store.instance(project, name)
    if body != {"action": "stop", "force": True}:
        raise NotFaked(f"a change of the state by {body}")
    if instance.status != "Running":
        raise Refused(words.ALREADY_STOPPED)
    daemon.stop(instance)
    return {"class": "task", "description": "Stopping instance", "status": "Running"}


def _profiles(daemon: Daemon, project: str, name: str, body: Body) -> object:
    known = daemon.store.profiles(project).items()
    return [show.profile(known_name, profile) for known_name, profile in known]


def _projects(daemon: Daemon, project: str, name: str, body: Body) -> object:
    return [show.project(known, daemon.store.project(known)) for known in daemon.store.projects]


def _project(daemon: Daemon, project: str, name: str, body: Body) -> object:
    return show.project(name, daemon.store.project(name))


def _pools(daemon: Daemon, project: str, name: str, body: Body) -> object:
    return [show.pool(known, daemon.store.pool(known)) for known in daemon.store.pools]


def _pool(daemon: Daemon, project: str, name: str, body: Body) -> object:
    return show.pool(name, daemon.store.pool(name))


def _networks(daemon: Daemon, project: str, name: str, body: Body) -> object:
    # A host also shows interfaces of its own, which no guest can name.
    own = {"name": "lo", "type": "loopback", "managed": False}
    managed = [{"name": n, "type": "bridge", "managed": True} for n in daemon.store.networks]
    return [own, *managed]


def _resources(daemon: Daemon, project: str, name: str, body: Body) -> object:
    pool = daemon.store.pool(name)
    return {"space": {"total": pool.total_bytes, "used": pool.used_bytes}}


_ROUTES: tuple[tuple[str, str, Callable[[Daemon, str, str, Body], Any]], ...] = (
    ("GET", "/1.0", _server),
    ("GET", "/1.0/images", _images),
    ("GET", "/1.0/images/aliases", _aliases),
    ("POST", "/1.0/images/aliases", _add_alias),
    ("GET", "/1.0/images/aliases/(.+)", _alias),
    ("PUT", "/1.0/images/aliases/(.+)", _move_alias),
    ("DELETE", "/1.0/images/aliases/(.+)", _delete_alias),
    ("GET", "/1.0/images/([^/]+)", _image),
    ("DELETE", "/1.0/images/([^/]+)", _delete_image),
    ("GET", "/1.0/instances", _instances),
    ("GET", "/1.0/instances/([^/]+)", _instance),
    ("PATCH", "/1.0/instances/([^/]+)", _patch_instance),
    ("GET", "/1.0/instances/([^/]+)/state", _state),
    ("PUT", "/1.0/instances/([^/]+)/state", _put_state),
    ("GET", "/1.0/networks", _networks),
    ("GET", "/1.0/profiles", _profiles),
    ("GET", "/1.0/projects", _projects),
    ("GET", "/1.0/projects/([^/]+)", _project),
    ("GET", "/1.0/resources", _machine),
    ("GET", "/1.0/storage-pools", _pools),
    ("GET", "/1.0/storage-pools/([^/]+)", _pool),
    ("GET", "/1.0/storage-pools/([^/]+)/resources", _resources),
)
