"""The guest image as a file, without the compilers that most of it is.

A daemon takes, unpacks and publishes it in a third of the time. For tests that do not ask what else
is in a guest.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

from orchestrator.host.setup import DEV_IMAGE
from orchestrator.incus import Host

SECS = 120
# What tests.integration.running.SLIM removes in a guest.
_LEFT_OUT = re.compile(
    r"rootfs/(?:var/lib/dpkg/info/|usr/(?:(?:share|include|lib/(?:file|gcc|git-core|python3))/"
    r"|lib/[^/]+/(?:(?:gconv|gprofng|perl)/|[^/]+\.a$|lib(?:asan|icudata|lsan|tsan|ubsan)\.so)"
    r"|lib/python3\.\d+/(?:ensurepip|idlelib|lib2to3|unittest)/"
    r"|bin/(?:[^/]+-linux-gnu-[^/]+|cmake|cpack|ctest)$))"
)


def export_slim_image(directory: Path) -> Path:
    """Write this machine's guest image, without compilers, as a file into the directory."""
    whole = directory / "whole"
    export = ["incus", "image", "export", "--quiet", "--project", Host().project]
    export += [f"local:{DEV_IMAGE}", str(whole)]
    subprocess.run(export, check=True, capture_output=True, timeout=SECS)
    (file,) = directory.glob("whole*")
    slim = directory / "slim.tar"
    with tarfile.open(file) as archive, tarfile.open(slim, "w") as kept:
        for member in archive:
            if _LEFT_OUT.match(member.name):
                continue
            assert not (member.islnk() and _LEFT_OUT.match(member.linkname)), member.name
            kept.addfile(member, archive.extractfile(member) if member.isreg() else None)
    file.unlink()
    return slim
