"""Maps commands to their handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from orchestrator.fake_incus import instances, library, rest
from orchestrator.fake_incus.daemon import Call, Daemon

Handler = Callable[[Daemon, Call], Awaitable[int]]  # returns the exit code

COMMANDS: dict[str, Handler] = {
    "create": instances.create,
    "launch": instances.launch,
    "start": instances.start,
    "stop": instances.stop,
    "delete": instances.delete,
    "exec": instances.exec_,
    "monitor": instances.monitor,
    "list": instances.list_,
    "info": instances.info,
    "file pull": instances.pull,
    "query": rest.query,
    "publish": instances.publish,
    "image list": library.image_list,
    "image import": library.image_import,
    "image delete": library.image_delete,
    "image alias list": library.alias_list,
    "image alias create": library.alias_create,
    "image alias delete": library.alias_delete,
    "project create": library.project_create,
    "project delete": library.project_delete,
    "profile create": library.profile_create,
    "profile delete": library.profile_delete,
    "storage create": library.storage_create,
    "storage delete": library.storage_delete,
}
