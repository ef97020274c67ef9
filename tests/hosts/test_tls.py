"""Jobs on a host that is reached over TLS, in a restricted project."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest

from orchestrator.hosts.trust import read_token
from orchestrator.journal import open_journal
from tests.hosts.forwarder import Forwarder
from tests.integration.command import AT_THE_GATE, MAKES_AN_IMAGE, Command, wait_until
from tests.integration.private_daemon import PROJECT
from tests.integration.test_tls_trust import changed
from tests.integration.tls_host import TlsHost

pytestmark = pytest.mark.incus


@pytest.fixture
def pikaci(tls_pikaci: Command) -> Command:
    """pikaci, with the far host as the one that runs jobs."""
    return tls_pikaci


def test_a_job_runs_there_on_the_files_from_here(far_of_all: TlsHost, pikaci: Command) -> None:
    """Its log and its exit code come back; the guest mounts a volume of that host."""
    (pikaci.workspace / "private").write_text("mine\n")
    (pikaci.workspace / "private").chmod(0o600)

    done = pikaci(
        "run",
        "--",
        "cat private; stat -c '%a %U' . private; touch x || true; grep ' /workspace/snapshot ' /proc/mounts; exit 3",
    )

    lines = done.stdout.splitlines()
    assert (1, ["mine", "755 pikaci", "600 pikaci"]) == (done.returncode, lines[:3]), done.stderr
    assert "Read-only file system" in done.stdout
    assert " ro," in done.stdout
    assert 1 == len(far_of_all.volumes())
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        (row,) = journal.jobs()
    assert "build" == row.host


def test_guests_there_have_id_maps_of_their_own(pikaci: Command) -> None:
    pikaci.write(
        "schema = 1\n"
        + "".join(f'[jobs.{name}]\ncommand = "cat /proc/self/uid_map; sleep 3"\n' for name in "abc")
    )

    done = pikaci("run", "--jobs", "3")

    assert 0 == done.returncode, done.stdout + done.stderr
    logs = [path.read_text() for path in pikaci.root.glob("jobs/*/attempt-1/guest.log")]
    maps = [line.split() for log in logs for line in log.splitlines() if line.split()[:1] == ["0"]]
    assert 3 == len({base for _, base, _ in maps})
    assert {"65536"} == {size for _, _, size in maps}


def test_a_tree_that_another_job_made_is_used_there(far_of_all: TlsHost, pikaci: Command) -> None:
    """And what a job needs of the outside; each is a volume, and goes over once."""
    pikaci.write(
        """
schema = 1

[jobs.make]
command = "mkdir /artifacts/out; echo made > /artifacts/out/it; ln -s it /artifacts/out/link"
output = "/artifacts/out"

[jobs.use]
command = "cat /staged/linux-rust/workspace-deps/link /mnt/it/it; test -s $SSL_CERT_FILE && echo trusts"
workspace_deps = { job = "make" }
mounts = [{ source = { job = "make" }, path = "/mnt/it" }]
egress = ["example.org"]
"""
    )

    done = pikaci("run", "use")
    before = far_of_all.volumes()
    again = pikaci("rerun", "use")

    assert (0, 0) == (done.returncode, again.returncode), done.stdout + done.stderr + again.stdout
    logs = [path.read_text() for path in pikaci.root.glob("jobs/*/attempt-1/guest.log")]
    assert 2 == len([log for log in logs if log.endswith("made\nmade\ntrusts\n")])
    assert 3 == len(before)
    assert before == far_of_all.volumes()


def test_an_image_that_another_job_made_is_used_there(far_of_all: TlsHost, pikaci: Command) -> None:
    pikaci.write(MAKES_AN_IMAGE)

    done = pikaci("run", "use")

    assert 0 == done.returncode, done.stdout + done.stderr
    images = json.loads(
        far_of_all.daemon.incus("image", "list", "--project", "pikaci", "-f", "json")
    )
    for image in images:
        if not image["aliases"]:
            far_of_all.daemon.incus("image", "delete", "--project", "pikaci", image["fingerprint"])


@pytest.mark.parametrize("key", ["nix_store", "workspace_deps", "mounts"])
def test_directories_of_the_host_are_refused_at_the_door(
    far_of_all: TlsHost, pikaci: Command, key: str
) -> None:
    value = '[{ source = "/srv", path = "/mnt/it" }]' if key == "mounts" else '"/srv"'
    pikaci.write(f'schema = 1\n[jobs.job]\ncommand = "true"\n{key} = {value}\n')

    done = pikaci("run")

    assert 2 == done.returncode
    assert f"{key}" in done.stderr
    assert "would be a directory of the host build" in done.stderr
    assert "{ job = NAME }" in done.stderr
    assert [] == far_of_all.volumes()


def test_a_job_whose_process_was_killed_goes_on_there(pikaci: Command, far_of_all: TlsHost) -> None:
    """`resume` needs no word of the host: the journal has it."""
    started = pikaci.run_until("running", "run", "--", f"echo before; {AT_THE_GATE}; echo after")
    started.send_signal(signal.SIGKILL)
    started.communicate()
    for name in far_of_all.daemon.instances():
        far_of_all.daemon.incus("exec", "--project", "pikaci", name, "--", "touch", "/tmp/go")
    del pikaci.env["PIKACI_HOST"]

    done = pikaci("resume")

    assert 0 == done.returncode, done.stderr
    assert [b"before", b"after"] == pikaci.log_lines()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_job_does_not_notice_that_its_daemon_is_away(
    pikaci: Command, far_of_all: TlsHost, number: signal.Signals
) -> None:
    """The log has no gap, and no line twice."""
    count = f"seq 1000; sleep 2; seq 1001 2000; {AT_THE_GATE}; seq 2001 3000"
    started = pikaci.run_until("running", "run", "--", count)
    (guest,) = far_of_all.daemon.instances()
    far_of_all.daemon.signal(number)
    time.sleep(3)
    if number is signal.SIGSTOP:
        far_of_all.daemon.signal(signal.SIGCONT)
    else:
        far_of_all.daemon.start()
    far_of_all.daemon.incus("exec", "--project", PROJECT, guest, "--", "touch", "/tmp/go")
    out, err = started.communicate()

    assert 0 == started.returncode, err
    assert [*map(str, range(1, 3001))] == out.splitlines()


def test_a_job_does_not_notice_that_its_connections_break(pikaci: Command, way: Forwarder) -> None:
    """Thrice, while it prints; the log has no gap, and no line twice."""
    count = "for n in $(seq 200); do echo $n; sleep 0.02; done"
    started = pikaci.run_until("running", "run", "--", count)
    for _ in range(3):
        time.sleep(1)
        way.cut()
    out, err = started.communicate()

    assert 0 == started.returncode, err
    assert [*map(str, range(1, 201))] == out.splitlines()


@pytest.mark.hosts
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_job_outlasts_a_port_that_does_not_answer(
    pikaci: Command, way: Forwarder, far_of_all: TlsHost, is_cut: bool
) -> None:
    """For a minute; the connections that met that are dead, or broke and are made anew in it."""
    command = f"seq 1000; {AT_THE_GATE}; seq 1001 2000"
    started = pikaci.run_until("running", "run", "--", command)
    (guest,) = far_of_all.daemon.instances()
    way.stall()
    if is_cut:
        way.cut()
    far_of_all.daemon.incus("exec", "--project", PROJECT, guest, "--", "touch", "/tmp/go")
    time.sleep(60)
    way.go_on()
    out, err = started.communicate()

    assert 0 == started.returncode, err
    assert [*map(str, range(1, 2001))] == out.splitlines()


def test_a_connection_that_breaks_while_trees_are_sent_costs_no_job(
    pikaci: Command, way: Forwarder, far_of_all: TlsHost
) -> None:
    (pikaci.workspace / "large").write_bytes(os.urandom(24 << 20))
    started = pikaci.start("run", "--", "sha256sum large")
    before = way.bytes
    wait_until(lambda: way.bytes > before + (4 << 20))
    way.cut()
    out, err = started.communicate()

    assert 0 == started.returncode, err
    digest = hashlib.sha256((pikaci.workspace / "large").read_bytes()).hexdigest()
    assert digest == out.split()[0]
    assert 1 == len(far_of_all.volumes())


def test_images_of_the_host_are_imported_listed_and_checked(
    far_of_all: TlsHost, pikaci: Command, tmp_path: Path
) -> None:
    """An image goes there from here; the one that it has keeps the contract there."""
    metadata = {
        "architecture": os.uname().machine,
        "creation_date": 1,
        "properties": {"pikaci.contract": "1"},
    }
    data = json.dumps(metadata).encode()
    with tarfile.open(tmp_path / "tiny", "w") as archive:
        info = tarfile.TarInfo("metadata.yaml")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
        root = tarfile.TarInfo("rootfs")
        root.type = tarfile.DIRTYPE
        archive.addfile(root)

    imported = pikaci("image", "import", str(tmp_path / "tiny"), "--alias", "my/tiny")
    try:
        listed = json.loads(pikaci("image", "list", "--output", "json").stdout)
    finally:
        far_of_all.daemon.incus("image", "delete", "--project", PROJECT, "my/tiny")
    checked = pikaci("image", "check", "pikaci/dev")

    assert 0 == imported.returncode, imported
    assert {"my/tiny", "pikaci/dev"} <= {alias for one in listed for alias in one["aliases"]}
    assert 0 == checked.returncode, checked
    assert "pikaci/dev keeps the contract" in checked.stdout


def test_a_cancelled_job_leaves_nothing_there(pikaci: Command) -> None:
    """The fixture looks for instances."""
    started = pikaci.run_until("running", "run", "--", "sleep 600")

    started.send_signal(signal.SIGINT)
    started.communicate()

    assert 130 == started.returncode


def test_a_tree_that_was_deleted_there_is_sent_again(far_of_all: TlsHost, pikaci: Command) -> None:
    assert 0 == pikaci("run", "--", "true").returncode
    far_of_all.clear()

    done = pikaci("run", "--", "true")

    assert 0 == done.returncode, done.stderr
    assert 1 == len(far_of_all.volumes())


def test_a_host_is_added_by_a_token_and_added_again(
    tmp_path: Path, far_of_all: TlsHost, pikaci: Command
) -> None:
    """A certificate that was made anew there needs that; the token is in no answer."""
    (tmp_path / "hosts.toml").unlink()
    del pikaci.env["PIKACI_HOST"]
    token = tmp_path / "token"
    for _ in range(2):
        token.write_text(far_of_all.token())
        added = pikaci("host", "add", "new", "--remote", "new", "--token-file", str(token))
        fingerprint = read_token(token.read_text()).fingerprint

        assert 0 == added.returncode, added.stdout + added.stderr
        assert f"its certificate is the token's: {fingerprint}" in added.stdout + added.stderr
        assert token.read_text().split()[-1] not in added.stdout + added.stderr
        assert 0 == pikaci("host", "check", "new").returncode
        assert 0 == pikaci("run", "--host", "new", "--", "true").returncode
        assert 0 == pikaci("host", "remove", "new").returncode
    token.write_text(changed(far_of_all.token(), fingerprint="0" * 64))
    other = pikaci("host", "add", "new", "--remote", "new", "--token-file", str(token))

    assert 4 == other.returncode
    assert "another fingerprint than the token's host" in other.stderr
    assert "[hosts.new]" not in (tmp_path / "hosts.toml").read_text()


def test_the_plan_names_the_volumes(far_of_all: TlsHost, pikaci: Command) -> None:
    """And nothing was sent there."""
    done = pikaci("run", "--dry-run", "--output", "json", "--", "true")

    assert 0 == done.returncode, done.stderr
    assert '"source": "pikaci-' in done.stdout.replace('":"', '": "')
    assert [] == far_of_all.volumes()


def test_old_trees_there_are_deleted_by_gc(far_of_all: TlsHost, pikaci: Command) -> None:
    assert 0 == pikaci("run", "--", "true").returncode
    (name,) = far_of_all.volumes()
    past = "user.pikaci.until=2020-01-01T00:00:00+00:00"
    there = ("--project", far_of_all.project, far_of_all.pool, name, past)
    far_of_all.daemon.incus("storage", "volume", "set", *there)

    done = pikaci("gc")

    assert 0 == done.returncode, done.stderr
    assert [] == far_of_all.volumes()


def test_a_host_that_does_not_trust_us_any_more_is_told(
    far_of_all: TlsHost, pikaci: Command
) -> None:
    for line in far_of_all.daemon.incus("config", "trust", "list", "-f", "csv", "-c", "f").split():
        far_of_all.daemon.incus("config", "trust", "remove", line)

    done = pikaci("run", "--", "true")

    assert 4 == done.returncode
    assert "incus config trust add" in done.stderr + done.stdout
    assert os.listdir(pikaci.root)
