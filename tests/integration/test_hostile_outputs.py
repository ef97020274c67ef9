"""Jobs that leave whatever a guest can make: it is taken as documented, or its job fails in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.journal import open_journal
from orchestrator.outputs.store import OutputStore
from orchestrator.session.gc import Bounds, collect_garbage
from states.outcome import Verdict
from states.spec import Deadlines, JobSpec, OutputOf
from tests.integration.running import Runs, output_of

pytestmark = pytest.mark.incus

OUT = "/artifacts/out"
DEPS = "/staged/linux-rust/workspace-deps"
MAKE = f"mkdir {OUT}; cd {OUT}; "
NAMES = rb"""
import os
os.mkdir(b"a\nb")
for name in (b"a\nb/c\xff\xfe", b"-rf *", b"caf\xc3\xa9", b" ", b"x" * 255, b"\x1b[31m"):
    open(name, "w").write("taken")
""".decode()
LINKS = """
ln -s /etc/shadow absolute
ln -s ../../../../../../../../etc/shadow out
ln -s . loop
ln -s loop/loop/absolute chain
mkdir -p dir && ln -s /etc dir/etc
ln -s "$(printf 'a%.0s' $(seq 4000))" long
"""


def python(program: str) -> str:
    return f"python3 - <<'PROGRAM'\n{program}\nPROGRAM"


def tree_of(runs: Runs) -> Path:
    """The only output's tree."""
    store = OutputStore(runs.root.outputs)
    (record,) = store.all()
    return store.tree(record.ref)


async def test_links_are_kept_and_lead_nobody(runs: Runs) -> None:
    """In the guest that uses them they mean what they say; on the host gc does not follow them."""
    look = f"cd {DEPS}; readlink absolute out loop chain dir/etc; readlink long | wc -c; cat dir/etc/hostname"
    specs = {
        "deps": JobSpec(command=MAKE + LINKS, output=OUT, sources=()),
        "use": JobSpec(command=f"{look} >/dev/null && {look}", workspace_deps=OutputOf("deps")),
    }
    jobs = await runs.run(specs)

    assert Verdict.PASSED is jobs["use"].verdict
    lines = output_of(jobs["use"]).decode().splitlines()
    up = "../" * 8
    assert ["/etc/shadow", f"{up}etc/shadow", ".", "loop/loop/absolute", "/etc"] == lines[:5]
    tree = tree_of(runs)
    assert "/etc" == os.readlink(tree / "dir" / "etc")
    with open_journal(runs.root.journal) as journal:
        freed = collect_garbage(runs.root, journal, Bounds(runs=0), dry_run=False)
    assert (1, ()) == (freed.outputs, freed.problems)
    assert not tree.exists()
    assert Path("/etc/passwd").is_file()


async def test_names_are_bytes(runs: Runs) -> None:
    """With line breaks, without an encoding, or like options: as they were made."""
    look = f"import os; os.chdir('{DEPS}'); print(sorted(os.listdir(b'.')), os.listdir(b'a\\nb'))"
    specs = {
        "deps": JobSpec(command=MAKE + python(NAMES), output=OUT, sources=()),
        "use": JobSpec(command=python(look), workspace_deps=OutputOf("deps")),
    }
    jobs = await runs.run(specs)

    names = [b"\x1b[31m", b" ", b"-rf *", b"a\nb", b"caf\xc3\xa9", b"x" * 255]
    assert f"{sorted(names)} {[bytes([99, 255, 254])]}\n".encode() == output_of(jobs["use"])
    assert sorted(names) == sorted(os.listdir(os.fsencode(tree_of(runs))))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param("mknod null c 0 0", "it has a device", id="device"),
        pytest.param("mkfifo pipe", "a pipe or a sparse file", id="pipe"),
        pytest.param(
            python("import socket; socket.socket(socket.AF_UNIX).bind('s')"),
            "",  # tar leaves sockets out
            id="socket",
        ),
        pytest.param("truncate -s 1T hole", "it has more than 1 GiB", id="sparse"),
        pytest.param(
            'mkdir -p "$(printf d/%.0s $(seq 250))"',
            "it has directories nested more than 200 deep",
            id="deep",
        ),
        # What it leads to is the guest's own.
        pytest.param(f"cd / && rmdir {OUT} && ln -s /etc {OUT}", "", id="link"),
        pytest.param("chmod 0 . && exec sleep 0", "", id="no-rights"),
    ],
)
async def test_what_no_tree_can_have(runs: Runs, command: str, words: str) -> None:
    """Its job fails, says so, and leaves nothing; what can be taken is, whoever made it."""
    bad = JobSpec(command=MAKE + command, output=OUT, sources=(), run_as_root=True, disk="1GiB")
    jobs = await runs.run(
        {"deps": bad, "use": JobSpec(command=f"ls -a {DEPS}", workspace_deps=OutputOf("deps"))}
    )

    if not words:
        assert (Verdict.PASSED, Verdict.PASSED) == (jobs["deps"].verdict, jobs["use"].verdict)
        return
    assert (Verdict.FAILED, Verdict.SKIPPED) == (jobs["deps"].verdict, jobs["use"].verdict)
    assert words in jobs["deps"].message
    assert [] == OutputStore(runs.root.outputs).all()
    assert [] == [path for path in runs.root.outputs.iterdir() if path.is_dir()]


async def test_a_full_disk_leaves_what_fitted(runs: Runs) -> None:
    """The command decides whether that is a failure."""
    fill = "dd if=/dev/zero of=full bs=1M 2>/dev/null || :"
    specs = {
        "deps": JobSpec(command=MAKE + fill, output=OUT, sources=(), disk="64MiB"),
        "use": JobSpec(command=f"stat -c %s {DEPS}/full", workspace_deps=OutputOf("deps")),
    }
    jobs = await runs.run(specs)

    assert Verdict.PASSED is jobs["use"].verdict
    assert 1 << 20 < int(output_of(jobs["use"])) < 64 << 20


def files(count: int) -> JobSpec:
    """A job whose output has so many entries, its root and directories included."""
    program = f"""
import os
left = {count} - 1
for number in range(left):
    if number % 1000 == 0:
        os.mkdir(f"d{{number}}")
        here = f"d{{number}}"
    else:
        os.mknod(f"{{here}}/{{number}}")
"""
    return JobSpec(
        command=MAKE + python(program),
        output=OUT,
        sources=(),
        disk="8GiB",
        deadlines=Deadlines(publish_secs=3600),
    )


async def count(runs: Runs, entries: int) -> tuple[Verdict | None, str, str]:
    """The verdict of a job with so many entries, its message, and how many another one finds."""
    look = f"find {DEPS} | wc -l"
    specs = {"deps": files(entries), "use": JobSpec(command=look, workspace_deps=OutputOf("deps"))}
    jobs = await runs.run(specs)
    found = output_of(jobs["use"]).decode().strip() if jobs["use"].artifacts else ""
    return jobs["deps"].verdict, jobs["deps"].message, found


async def test_a_tree_of_very_many_files(runs: Runs) -> None:
    """20,000 are no problem; they are more than the arguments of a command can name."""
    verdict, message, found = await count(runs, 20_000)

    assert (Verdict.PASSED, "20000") == (verdict, found), message


@pytest.mark.hostile
async def test_the_most_files_that_a_tree_may_have(runs: Runs) -> None:
    """A million is taken, and one more is not."""
    verdict, message, found = await count(runs, 1_000_000)
    assert (Verdict.PASSED, "1000000") == (verdict, found), message

    verdict, message, _ = await count(runs, 1_000_002)
    assert Verdict.FAILED is verdict
    assert "more than 1000000 files" in message
