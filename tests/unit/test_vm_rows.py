"""The rows for virtual machines: what becomes of a job, and which rows are left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from orchestrator.image.machine import VM
from states.spec import Deadlines, InstanceType, JobSpec
from tests.vm.machine import Bench, as_machine
from tests.vm.remembered import Remembered, tree_digest

ROOT = Path(__file__).parents[2]
HOST = Bench(image="my/vm", slow=10, cpus=1, at_once=1)


def test_a_container_s_job_becomes_a_machine_s() -> None:
    """What it does stays; what limits it is enough for a boot, on a slow host."""
    spec = JobSpec(command="true", memory="128MiB", disk="1GiB", timeout_secs=600, run_as_root=True)
    made = as_machine(spec, HOST)

    assert (InstanceType.VIRTUAL_MACHINE, "my/vm", 1) == (
        made.instance_type,
        made.image,
        made.cpus,
    )
    assert ("1GiB", "6GiB", 6000) == (made.memory, made.disk, made.timeout_secs)
    assert (1200, 600) == (made.deadlines.start_secs, made.deadlines.ready_secs)
    assert (spec.command, spec.run_as_root) == (made.command, made.run_as_root)


def test_what_a_row_is_about_stays() -> None:
    """A short timeout, the grace, an image of its own, more memory than the least."""
    spec = JobSpec(
        command="true",
        image="other/vm",
        memory="8GiB",
        timeout_secs=1,
        deadlines=Deadlines(grace_secs=2),
    )
    made = as_machine(spec, HOST)

    assert ("other/vm", "8GiB", 1, 2) == (
        made.image,
        made.memory,
        made.timeout_secs,
        made.deadlines.grace_secs,
    )
    assert msgspec.structs.replace(made, cpus=2) == as_machine(made, Bench("my/vm", 1, 2, 1))


def test_a_row_is_remembered_for_its_tree_and_image(tmp_path: Path) -> None:
    """Another tree or image forgets it; so does a file that is none."""
    file = tmp_path / "build/rows.json"
    Remembered("tree", "image", file).passed("row", 12.4)

    assert {"row"} == Remembered("tree", "image", file).rows.keys()
    assert 12 == Remembered("tree", "image", file).rows["row"]["secs"]
    assert {} == Remembered("other", "image", file).rows
    assert {} == Remembered("tree", "other", file).rows
    file.write_text("{")
    assert {} == Remembered("tree", "image", file).rows


def test_the_tree_is_what_a_row_runs(tmp_path: Path) -> None:
    """Its bytes and its names, and nothing that Python leaves behind."""
    file = tmp_path / "states/a.py"
    file.parent.mkdir()
    file.write_text("1")
    first = tree_digest(tmp_path)
    (tmp_path / "states/a.pyc").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").touch()

    assert first == tree_digest(tmp_path)
    file.rename(tmp_path / "states/b.py")
    assert first != tree_digest(tmp_path)


def test_without_machines_the_rows_are_left_out_loudly(tmp_path: Path) -> None:
    """Each says so, and that nothing was tested."""
    env = {**os.environ, "PIKACI_TEST_VM_IMAGE": "no/such", "HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/vm",
        "-m",
        "vm",
        "-rs",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout
    assert " passed" not in done.stdout.splitlines()[-1]
    assert "virtual machines are NOT tested" in done.stdout
    assert VM.alias not in done.stdout
