"""The daemon's output: JSON documents of the API, and csv rows."""

from __future__ import annotations

import csv
import io
from typing import Any

from orchestrator.fake_incus.model import (
    STATUS_CODES,
    Image,
    Instance,
    Pool,
    Profile,
    Project,
    Store,
)
from orchestrator.fake_incus.words import NotFaked


def instance(store: Store, known: Instance) -> dict[str, Any]:
    """As in `/1.0/instances?recursion=1` and `list --format json`."""
    config, devices = store.expanded(known)
    return {
        "name": known.name,
        "project": known.project,
        "type": known.type,
        "description": known.description,
        "architecture": "x86_64",
        "ephemeral": known.ephemeral,
        "stateful": False,
        "location": "none",
        "created_at": known.created_at,
        "status": known.shown_status,
        "status_code": STATUS_CODES[known.shown_status],
        "profiles": known.profiles,
        "config": known.config,
        "devices": known.devices,
        "expanded_config": config,
        "expanded_devices": devices,
    }


def image(known: Image) -> dict[str, Any]:
    """As in `/1.0/images?recursion=1`."""
    return {
        "fingerprint": known.fingerprint,
        "type": known.type,
        "aliases": [{"name": name, "description": ""} for name in known.aliases],
        "properties": known.properties,
        "architecture": "x86_64",
        "size": known.size,
        "uploaded_at": known.uploaded_at,
        "created_at": known.uploaded_at,
        "public": False,
        "cached": False,
        "auto_update": False,
        "profiles": ["default"],
    }


def alias(known: Image, name: str) -> dict[str, str]:
    """As in `/1.0/images/aliases/NAME`."""
    return {"name": name, "description": "", "target": known.fingerprint, "type": known.type}


def profile(name: str, known: Profile) -> dict[str, Any]:
    """As in `/1.0/profiles?recursion=1`."""
    described = {"description": known.description, "config": known.config}
    return {"name": name, **described, "devices": known.devices}


def project(name: str, known: Project) -> dict[str, Any]:
    """As in `/1.0/projects/NAME`."""
    return {"name": name, "description": "", "config": known.config}


def pool(name: str, known: Pool) -> dict[str, Any]:
    """As in `/1.0/storage-pools/NAME`."""
    described = {"driver": known.driver, "config": known.config}
    return {"name": name, "description": "", **described, "status": "Created"}


def row(known: Instance, columns: str) -> str:
    """A line of `list --format csv`. A column with a dot is a configuration key."""
    cells: list[str] = []
    for part in columns.split(","):
        if "." in part:
            cells.append(known.config.get(part.removeprefix("config:").partition(":")[0], ""))
            continue
        for letter in part:
            match letter:
                case "n":
                    cells.append(known.name)
                case "s":
                    cells.append(known.shown_status.upper())
                case "t":
                    cells.append("CONTAINER" if known.type == "container" else "VIRTUAL-MACHINE")
                case "e":
                    cells.append(known.project)
                case _:
                    raise NotFaked(f"incus list --columns {letter}")
    return line(cells)


def line(cells: list[str]) -> str:
    """One line of csv, without the line break."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
