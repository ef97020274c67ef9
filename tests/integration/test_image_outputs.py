"""Image outputs of real guests: a job's guest is another job's image, and new in it."""

from __future__ import annotations

import pytest

from orchestrator.image import smoke
from orchestrator.image.store import Image, list_images
from orchestrator.journal import open_journal
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec, OutputOf
from tests.integration.running import SLIM, Runs, infrastructure, output_of

pytestmark = pytest.mark.incus

TOOLCHAIN = f"""{SLIM}
printf '#!/bin/sh\\necho it runs\\n' >/usr/local/bin/tool
chmod 755 /usr/local/bin/tool
echo 'tester:x:1234:100::/home/tester:/bin/sh' >>/etc/passwd
echo 'export FROM_PROFILE=1' >>/etc/profile
echo secret-free >/home/pikaci/kept
touch /artifacts/mine /cargo-target/mine /tmp/mine /var/log/mine
"""
LOOK = """
tool; id -un 1234; cat /home/pikaci/kept
ls -A /artifacts /cargo-target /tmp /var/log; cat /etc/machine-id
grep -c 127.0.1.1 /etc/hosts
"""
MADE = JobSpec(command=TOOLCHAIN, run_as_root=True, output="image", sources=())


@pytest.mark.usefixtures("images")
async def test_a_guest_becomes_the_image_of_other_jobs(runs: Runs) -> None:
    """As it was left, but for what was the job's own; made once."""
    specs = {
        "toolchain": MADE,
        "user": JobSpec(command=LOOK, image=OutputOf("toolchain")),
        "root": JobSpec(command=LOOK, image=OutputOf("toolchain"), run_as_root=True),
    }
    first = await runs.run(specs)
    again = await runs.run(specs)

    assert all(job.verdict is Verdict.PASSED for job in (*first.values(), *again.values()))
    assert [State.RESULT_COLLECTED, State.REUSED] == [
        one["toolchain"].state for one in (first, again)
    ]
    seen = "it runs\ntester\nsecret-free\n/artifacts:\nxdg-state\n\n/cargo-target:\n\n/tmp:\n\n"
    seen += "/var/log:\napt\n1\n"
    for name in ("user", "root"):
        assert seen == output_of(first[name]).decode() == output_of(again[name]).decode()
        image = first[name].image
        assert image is not None
        assert "toolchain (output)" == image.alias


async def made(runs: Runs) -> list[Image]:
    """The images of the test's state root."""
    with open_journal(runs.root.journal) as journal:
        owner = journal.owner
    images = await list_images(runs.incus)
    return [image for image in images if image.origin and image.origin.owner == owner]


RUNNER = "/usr/lib/pikaci/pikaci-incus-run"
AT_BOOT = "sed -i '2i {}' /usr/sbin/init"
CONTRACT = "does not run as the guest contract says"


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(f"rm {RUNNER}", "is not ready", id="no-runner"),
        pytest.param(f"printf '#!/bin/sh\\necho hi\\n' >{RUNNER}", CONTRACT, id="other-runner"),
        pytest.param("rm /usr/sbin/init", "no guest can be started", id="no-init"),
        pytest.param("userdel pikaci || sed -i /pikaci/d /etc/passwd", CONTRACT, id="no-user"),
        pytest.param(
            AT_BOOT.format(
                "mkdir -p /var/lib/pikaci-incus-run; : >/var/lib/pikaci-incus-run/started"
            ),
            CONTRACT,
            id="joined-at-boot",
        ),
        pytest.param(
            AT_BOOT.format("(while :; do echo x >/cargo-target/x; done) \\&"),
            CONTRACT,
            id="service",
        ),
        pytest.param("ln -sf /bin/false /usr/bin/du", "cannot be cleaned", id="no-du"),
        pytest.param("dd if=/dev/zero of=/opt/full bs=1M || :", "its disk is full", id="full-disk"),
        pytest.param("truncate -s 100G /opt/hole", "counting the holes", id="sparse"),
    ],
)
async def test_a_hostile_guest_does_not_become_an_image(
    runs: Runs, command: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job fails, in words; nothing of it is left, and nobody runs in it."""
    if words == "is not ready":  # and never will be
        monkeypatch.setattr(smoke, "READY_SECS", 3)
    bad = JobSpec(
        command=SLIM + command, run_as_root=True, output="image", sources=(), disk="64MiB"
    )
    jobs = await runs.run(
        {"toolchain": bad, "use": JobSpec(command="true", image=OutputOf("toolchain"))}
    )

    assert (Verdict.FAILED, Verdict.SKIPPED) == (jobs["toolchain"].verdict, jobs["use"].verdict)
    assert words in jobs["toolchain"].message
    assert [] == await made(runs)


# As it took its arguments once.
OTHER_END = """
program=$(readlink -f /run/current-system/sw/bin/pikaci-egress)
printf '#!/usr/bin/python3\\nimport sys\\nint(sys.argv[1])\\n' >"$program"
"""


@pytest.mark.usefixtures("images")
async def test_an_image_of_another_time_is_told_in_a_line(runs: Runs) -> None:
    """Its version is right, but its guest's end of a way out takes other arguments: no traceback."""
    specs = {
        "toolchain": JobSpec(
            command=SLIM + OTHER_END, run_as_root=True, output="image", sources=()
        ),
        "use": JobSpec(command="true", image=OutputOf("toolchain"), egress=("*",)),
    }
    job = (await runs.run(specs))["use"]

    words = "the guest's part of the proxy does not start: ValueError"
    assert infrastructure(job, words)
    assert job.failure is not None
    assert "Traceback" not in job.failure.message
    assert "pikaci image build" in job.failure.resolution


@pytest.mark.usefixtures("images")
async def test_links_in_a_guest_lead_nowhere_else(runs: Runs) -> None:
    """What is deleted are the links, not what they lead to."""
    command = """
    mkdir /opt/mine && echo kept >/opt/mine/kept
    for dir in /cargo-target /var/tmp; do rm -rf "$dir" && ln -s /opt/mine "$dir"; done
    ln -sf /opt/mine/kept /var/log/wtmp
    rm -f /etc/machine-id && ln -s /opt/mine/id /etc/machine-id
    """
    jobs = await runs.run(
        {
            "toolchain": JobSpec(
                command=SLIM + command, run_as_root=True, output="image", sources=()
            ),
            "use": JobSpec(
                command="cat /opt/mine/kept; stat -c '%F %U' /cargo-target; ls -A /var/log",
                image=OutputOf("toolchain"),
            ),
        }
    )

    assert b"kept\ndirectory pikaci\napt\n" == output_of(jobs["use"])
