"""`incus query`: the few places of the REST API that pikaci reads and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from orchestrator.fake_incus import show, words
from orchestrator.fake_incus.daemon import Call, Daemon, local
from orchestrator.fake_incus.model import STATUS_CODES, Device, Image
from orchestrator.fake_incus.words import NotFaked, Refused

Body = dict[str, Any]


async def query(daemon: Daemon, call: Call) -> int:
    """`query [--request METHOD] [--data JSON] PATH`."""
    url = urlsplit(local(call.command.args[0]))
    asked = {key: values[-1] for key, values in parse_qs(url.query).items()}
    project = asked.get("project", call.command.project)
    method = call.command.flag("request", "GET")
    body: Body = json.loads(call.command.flag("data", "{}"))
    if method == "GET" and url.path == "/1.0/instances" and asked.get("all-projects"):
        found = [_instances(daemon, name, [], body) for name in daemon.store.projects]
        await _print(call, [known for part in found for known in part])
        return 0
    for known_method, pattern, answer in _ROUTES:
        match = re.fullmatch(pattern, url.path)
        if match and method == known_method:
            if url.path in _LISTS and method == "GET" and asked.get("recursion") != "1":
                raise NotFaked(f"incus query {url.path} without recursion=1")
            await _print(call, answer(daemon, project, [unquote(x) for x in match.groups()], body))
            return 0
    raise NotFaked(f"incus query --request {method} {url.path}")


async def _print(call: Call, document: object) -> None:
    if document is not None:
        await call.say(json.dumps(document, indent="\t"))


def _server(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    return {
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted",
        "environment": {"server": "incus", "server_version": "6.0.4", "project": project},
    }


def _images(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    return [show.image(image) for image in daemon.store.images(project).values()]


def _image(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    for fingerprint, image in daemon.store.images(project).items():
        if fingerprint.startswith(names[0]):
            return show.image(image)
    raise Refused("Image not found")


def _delete_image(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    if daemon.store.images(project).pop(names[0], None) is None:
        raise Refused("Image not found")
    return None


def _with_alias(daemon: Daemon, project: str, alias: str) -> Image:
    for image in daemon.store.images(project).values():
        if alias in image.aliases:
            return image
    raise Refused(words.IMAGE_ALIAS_NOT_FOUND)


def _alias(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    return show.alias(_with_alias(daemon, project, names[0]), names[0])


def _aliases(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    images = daemon.store.images(project).values()
    return [show.alias(image, name) for image in images for name in image.aliases]


def _add_alias(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    if any(body["name"] in image.aliases for image in daemon.store.images(project).values()):
        raise Refused(f'Alias "{body["name"]}" already exists')
    daemon.store.image(project, body["target"]).aliases.append(body["name"])
    return None


def _move_alias(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    target = daemon.store.image(project, body["target"])
    _with_alias(daemon, project, names[0]).aliases.remove(names[0])
    target.aliases.append(names[0])
    return None


def _delete_alias(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    _with_alias(daemon, project, names[0]).aliases.remove(names[0])
    return None


def _instances(daemon: Daemon, project: str, names: list[str], body: Body) -> list[Body]:
    known = daemon.store.projects[project].instances if project in daemon.store.projects else {}
    return [show.instance(daemon.store, instance) for _, instance in sorted(known.items())]


def _instance(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    return show.instance(daemon.store, daemon.store.instance(project, names[0]))


def _patch_instance(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    instance = daemon.store.instance(project, names[0])
    instance.config |= body.get("config", {})
    devices: dict[str, Device] = body.get("devices", {})
    instance.devices |= devices
    instance.description = body.get("description", instance.description)
    return None


def _state(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    status = daemon.store.instance(project, names[0]).status
    return {"status": status, "status_code": STATUS_CODES[status]}


def _profiles(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    profiles = daemon.store.profiles(project).items()
    return [{"name": n, "config": p.config, "devices": p.devices} for n, p in profiles]


def _projects(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    return [{"name": n, "config": p.config} for n, p in daemon.store.projects.items()]


def _pools(daemon: Daemon, project: str, names: list[str], body: Body) -> object:
    return [{"name": n, "driver": p.driver} for n, p in daemon.store.pools.items()]


_LISTS = ("/1.0/images", "/1.0/images/aliases", "/1.0/instances", "/1.0/profiles")
_ROUTES: tuple[tuple[str, str, Callable[[Daemon, str, list[str], Body], object]], ...] = (
    ("GET", "/1.0", _server),
    ("GET", "/1.0/images", _images),
    ("GET", "/1.0/images/aliases", _aliases),
    ("POST", "/1.0/images/aliases", _add_alias),
    ("GET", "/1.0/images/aliases/([^/]+)", _alias),
    ("PUT", "/1.0/images/aliases/([^/]+)", _move_alias),
    ("DELETE", "/1.0/images/aliases/([^/]+)", _delete_alias),
    ("GET", "/1.0/images/([^/]+)", _image),
    ("DELETE", "/1.0/images/([^/]+)", _delete_image),
    ("GET", "/1.0/instances", _instances),
    ("GET", "/1.0/instances/([^/]+)", _instance),
    ("PATCH", "/1.0/instances/([^/]+)", _patch_instance),
    ("GET", "/1.0/instances/([^/]+)/state", _state),
    ("GET", "/1.0/profiles", _profiles),
    ("GET", "/1.0/projects", _projects),
    ("GET", "/1.0/storage-pools", _pools),
)
