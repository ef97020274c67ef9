"""Commands for images and their aliases, projects, profiles and pools."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.fake_incus import show, words
from orchestrator.fake_incus.daemon import Call, Daemon, local
from orchestrator.fake_incus.model import Image, Pool, Profile, Project
from orchestrator.fake_incus.words import NotFaked, Refused

_QCOW2 = b"QFI\xfb"


async def image_list(daemon: Daemon, call: Call) -> int:
    """`image list --format json`."""
    images = daemon.store.images(call.command.project).values()
    await _listing(call, [show.image(known) for known in images])
    return 0


async def image_import(daemon: Daemon, call: Call) -> int:
    """`image import FILE [DISK] [REMOTE:] [KEY=VALUE...] [--alias A]`; an alias moves to it."""
    files = [word for word in call.command.args if "=" not in word and not word.endswith(":")]
    more = call.command.args[len(files) :]
    content, *disk = [Path(file).read_bytes() for file in files]
    fingerprint = hashlib.sha256(b"".join([content, *disk])).hexdigest()
    properties = _properties(content)
    images = daemon.store.images(call.command.project)
    if fingerprint in images:
        raise Refused(words.SAME_FINGERPRINT)
    aliases = call.command.flags.get("alias", [])
    for image in images.values():
        image.aliases = [alias for alias in image.aliases if alias not in aliases]
    images[fingerprint] = Image(
        fingerprint=fingerprint,
        aliases=list(aliases),
        properties=properties | dict(word.split("=", 1) for word in more if "=" in word),
        type="virtual-machine" if disk and disk[0].startswith(_QCOW2) else "container",
        size=len(content) + sum(map(len, disk)),
        uploaded_at=daemon.now().isoformat(),
    )
    return await _done(call, f"Image imported with fingerprint: {fingerprint}")


def _properties(content: bytes) -> dict[str, str]:
    """The properties in an image's metadata.yaml; the fake reads only YAML that is also JSON."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            metadata = archive.extractfile("metadata.yaml")
            assert metadata is not None
            properties = json.load(metadata)["properties"]
    except tarfile.ReadError:
        raise Refused(words.NO_ARCHIVE) from None
    except KeyError:
        raise Refused(words.NO_METADATA) from None
    except ValueError:
        raise NotFaked("an image's metadata that is YAML, but not JSON") from None
    return {key: str(value) for key, value in properties.items()}


async def image_delete(daemon: Daemon, call: Call) -> int:
    """`image delete NAME...`"""
    for name in call.command.args:
        try:
            image = daemon.store.image(call.command.project, local(name))
        except Refused:
            raise Refused(words.IMAGE_NOT_FOUND) from None
        del daemon.store.images(call.command.project)[image.fingerprint]
    return 0


async def alias_list(daemon: Daemon, call: Call) -> int:
    """`image alias list --format json`."""
    images = daemon.store.images(call.command.project).values()
    await _listing(call, [show.alias(known, name) for known in images for name in known.aliases])
    return 0


async def alias_create(daemon: Daemon, call: Call) -> int:
    """`image alias create ALIAS FINGERPRINT`."""
    alias, fingerprint = call.command.args
    image = daemon.store.image(call.command.project, fingerprint)
    known = daemon.store.images(call.command.project).values()
    if any(local(alias) in other.aliases for other in known):
        raise Refused(words.alias_taken(local(alias)))
    image.aliases.append(local(alias))
    return 0


async def alias_delete(daemon: Daemon, call: Call) -> int:
    """`image alias delete ALIAS`."""
    alias = local(call.command.args[0])
    for image in daemon.store.images(call.command.project).values():
        if alias in image.aliases:
            image.aliases.remove(alias)
            return 0
    raise Refused(words.IMAGE_ALIAS_NOT_FOUND)


async def project_create(daemon: Daemon, call: Call) -> int:
    """`project create NAME [--config KEY=VALUE]`."""
    name = local(call.command.args[0])
    if name in daemon.store.projects:
        raise Refused(words.project_taken(name))
    config = {"features.images": "true", "features.profiles": "true"}
    config |= dict(pair.split("=", 1) for pair in call.command.flags.get("config", []))
    daemon.store.projects[name] = Project(config=config, profiles={"default": Profile()})
    return await _done(call, f"Project {name} created")


async def project_delete(daemon: Daemon, call: Call) -> int:
    """`project delete NAME`, which must be empty."""
    name = local(call.command.args[0])
    if name not in daemon.store.projects:
        raise Refused(f'Fetch project "{name}": {words.PROJECT_NOT_FOUND}')
    project = daemon.store.projects[name]
    if project.instances or project.images or project.profiles.keys() - {"default"}:
        raise Refused(words.PROJECT_NOT_EMPTY)
    del daemon.store.projects[name]
    return await _done(call, f"Project {name} deleted")


async def profile_create(daemon: Daemon, call: Call) -> int:
    """`profile create NAME`, with its document on stdin."""
    name = local(call.command.args[0])
    profiles = daemon.store.profiles(call.command.project)
    if name in profiles:
        raise Refused(words.profile_taken(name))
    document = json.loads(await call.stdin.read() or b"{}")
    profiles[name] = Profile(
        document.get("description", ""), document.get("config", {}), document.get("devices", {})
    )
    return await _done(call, f"Profile {name} created")


async def profile_delete(daemon: Daemon, call: Call) -> int:
    """`profile delete NAME`."""
    name = local(call.command.args[0])
    if daemon.store.profiles(call.command.project).pop(name, None) is None:
        raise Refused(words.PROFILE_NOT_FOUND)
    return await _done(call, f"Profile {name} deleted")


async def storage_create(daemon: Daemon, call: Call) -> int:
    """`storage create NAME DRIVER [KEY=VALUE...]`."""
    name, driver, *pairs = call.command.args
    if local(name) in daemon.store.pools:
        raise Refused(words.POOL_TAKEN)
    daemon.store.pools[local(name)] = Pool(driver, dict(pair.split("=", 1) for pair in pairs))
    return await _done(call, f"Storage pool {local(name)} created")


async def storage_delete(daemon: Daemon, call: Call) -> int:
    """`storage delete NAME`."""
    name = local(call.command.args[0])
    if daemon.store.pools.pop(name, None) is None:
        raise Refused(words.POOL_NOT_FOUND)
    return await _done(call, f"Storage pool {name} deleted")


async def _done(call: Call, text: str) -> int:
    if not call.command.flag("quiet"):
        await call.say(text)
    return 0


async def _listing(call: Call, documents: Sequence[Mapping[str, object]]) -> None:
    if call.command.flag("format") != "json":
        raise NotFaked(f"incus {call.command.verb} without --format json")
    await call.say(json.dumps(documents))
