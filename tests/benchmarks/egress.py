"""How fast a way out is: the start of a job with and without one, and MB/s beside the loopback's.

    python tests/benchmarks/egress.py [--image pikaci/dev] [--mib 1024] [--starts 9]

Jobs run one after the other, on the real Incus. The server is on this host: what is measured is the
way out, and no network.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path

import trio

from states.spec import JobSpec
from tests.integration.egress_servers import HERE, MIB, Web, server
from tests.integration.running import Runs, output_of


def direct(port: int, mib: int) -> float:
    """Seconds of a download on the loopback, by curl as in the guest."""
    began = time.monotonic()
    with urllib.request.urlopen(f"http://{HERE}:{port}/{mib * MIB}") as answer:
        while answer.read(MIB):
            pass
    return time.monotonic() - began


async def start_secs(runs: Runs, spec: JobSpec) -> float:
    """From the submission to the command's start."""
    job = await runs.run_one(spec)
    begins = {phase.state.value: phase.entered_at for phase in job.phases}
    return (begins["running"] - begins["submitted"]).total_seconds()


async def main(image: str, mib: int, starts: int, base: Path) -> None:
    runs = Runs(base)
    with server(Web, http=True) as port:
        rules = (f"{HERE}:{port}",)
        plain, with_egress = (
            JobSpec(command="true", image=image, egress=rules) for rules in ((), rules)
        )
        found: dict[str, list[float]] = {"none": [], "egress": []}
        for _ in range(starts):
            found["none"].append(await start_secs(runs, plain))
            found["egress"].append(await start_secs(runs, with_egress))
        none, egress = (statistics.median(found[key]) for key in ("none", "egress"))
        print(f"start: {none:.3f} s without, {egress:.3f} s with egress: {egress / none:.2f} times")

        url = f"http://{HERE}:{port}"
        curl = "curl --noproxy '' -sS -o /dev/null -w '%{speed_download} %{speed_upload}\\n'"
        command = f"""
{curl} {url}/{mib * MIB}
{curl} -p {url}/{mib * MIB}
head -c {mib}M /dev/zero | {curl} -T - -H 'Transfer-Encoding:' -H 'Content-Length: {mib * MIB}' {url}/
for n in 1 2 3 4; do {curl} -p {url}/{mib * MIB // 4 // MIB * MIB} & done; wait
"""
        job = await runs.run_one(JobSpec(command=command, image=image, egress=rules))
        lines = [line.split() for line in output_of(job).decode().splitlines()]
        names = ("download", "download by CONNECT", "upload", *("one of four downloads",) * 4)
        for name, (down, up) in zip(names, lines, strict=True):
            print(f"{name}: {max(float(down), float(up)) / 1e6:.0f} MB/s")
        secs = await trio.to_thread.run_sync(direct, port, mib)
        print(f"direct download on the loopback: {mib * MIB / secs / 1e6:.0f} MB/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", default="pikaci/dev")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--starts", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        trio.run(partial(main, given.image, given.mib, given.starts, Path(made)))
