"""The job by craft-providers; runs in an environment that has it, and nothing of pikaci.

Reads a JSON document from stdin, prints the moments, as seconds since the submission, and the result.
"""

import base64
import json
import subprocess
import sys
import time
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from craft_providers.lxd import LXC, LXDInstance  # type: ignore[import-not-found]


def main(job: dict[str, Any]) -> dict[str, Any]:
    began, moments = time.monotonic(), {}
    lxc = LXC(lxc_path=Path(job["lxc"]))
    instance = LXDInstance(
        name=job["instance"], project=job["project"], lxc=lxc, intercept_mknod=False
    )
    where = {"instance_name": instance.instance_name, "project": job["project"]}
    lxc.launch(config_keys=job["config"], image=job["image"], image_remote="local", **where)
    instance.execute_run(["sh", "-c", job["ready"]], check=True, capture_output=True)
    for mount in job["mounts"]:
        # Not `instance.mount`: it cannot read an instance's own root disk, and takes a call more.
        source, path = Path(mount["source"]), PurePath(mount["path"])
        lxc.config_device_add_disk(source=source, path=path, device=mount["name"], **where)
    runner = instance.execute_popen(job["runner"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    runner.stdin.write(base64.b64decode(job["stdin"]))
    runner.stdin.close()
    said = b""
    while b"first" not in said and (more := runner.stdout.read1()):  # after the runner's own line
        said += more
    moments["first byte"] = time.monotonic() - began
    runner.stdout.read()
    runner.wait()
    with TemporaryDirectory() as directory:
        for source in (job["result"], job["log"]):
            into = Path(directory) / PurePath(source).name
            instance.pull_file(source=PurePath(source), destination=into)
            if source == job["result"]:
                moments["verdict"] = time.monotonic() - began
                result = into.read_text()
    instance.delete()
    moments["gone"] = time.monotonic() - began
    return {"moments": moments, "result": result}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
