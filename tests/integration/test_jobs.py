"""Real jobs in real guests of the built image."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import trio

from orchestrator.errors import one_error
from orchestrator.journal import open_journal
from states import events as ev
from states.errors import SpecError
from states.job import Job
from states.lifecycle import State
from states.outcome import FailureKind, Outcome
from states.spec import Deadlines, JobSpec, Mount
from tests.calls import call
from tests.integration.running import Runs, artifact, log_of, output_of

pytestmark = pytest.mark.incus


async def test_a_job_passes_all_states_with_seven_incus_calls(runs: Runs) -> None:
    """The path is the card's. Beside the image look-up a job makes at most seven calls.

    One of them waits for none of the others: who has its guest's ids, while the guest boots.
    """
    job = await runs.run_one(JobSpec(command="cat hello.txt"))

    with open_journal(runs.root.journal) as journal:
        entries = [entry for _, entry in journal.entries(job.id)]
    calls = [entry for entry in entries if isinstance(entry, ev.Called)]

    assert [
        "submitted",
        "artifacts_reset",
        "devices_configured",
        "instance_ready",
        "running",
        "result_collected",
    ] == [phase.state for phase in job.phases]
    assert (Outcome.PASSED, 0, "test passed") == (job.outcome, job.exit_code, job.message)
    assert b"hello\n" == output_of(job)
    assert 7 >= len(calls), [call.argv for call in calls]
    assert 1 >= [call.effect for call in calls].count("query")


@pytest.mark.parametrize("root", [True, False], ids=["root", "pikaci"])
async def test_exit_codes_are_the_command_s(runs: Runs, root: bool) -> None:
    """0 passes; any other code fails with its number, 124 and 137 too: only the timer times out."""
    codes = (0, 1, 7, 124, 137)

    jobs = await runs.run(
        {f"exit-{code}": JobSpec(command=f"exit {code}", run_as_root=root) for code in codes}
    )

    for code in codes:
        job = jobs[f"exit-{code}"]
        assert code == job.exit_code
        assert (Outcome.PASSED if code == 0 else Outcome.FAILED) == job.outcome
    assert "test command exited with 7" == jobs["exit-7"].message
    assert jobs["exit-7"].failure is not None
    assert FailureKind.TEST == jobs["exit-7"].failure.kind


@pytest.mark.parametrize("root", [True, False], ids=["root", "pikaci"])
async def test_the_snapshot_is_read_only_and_readable(runs: Runs, root: bool) -> None:
    """A write is refused as read-only; a mode-600 file can be read by the job's user."""
    secret = runs.workspace / "private.txt"
    secret.write_text("mine\n")
    secret.chmod(0o600)

    job = await runs.run_one(
        JobSpec(command="cat private.txt; LC_ALL=C touch new 2>&1 || true", run_as_root=root)
    )

    assert Outcome.PASSED == job.outcome
    assert b"mine\n" in output_of(job)
    assert b"Read-only file system" in output_of(job)
    assert ["hello.txt", "private.txt"] == sorted(os.listdir(runs.workspace))


async def test_all_devices_stand_at_their_paths_and_are_read_only(
    runs: Runs, tmp_path: Path
) -> None:
    """The three optional devices and a mount of the user's own, read-only, at the guest paths."""
    sources = {}
    for name in ("deps", "build", "store", "data"):
        source = tmp_path / name
        source.mkdir()
        source.chmod(0o755)
        (source / "name").write_text(name)
        sources[name] = str(source)
    spec = JobSpec(
        command=(
            "cat /staged/linux-rust/workspace-deps/name /staged/linux-rust/workspace-build/name"
            " /mnt/pikaci-nix-store/name /mnt/data/name; echo; echo $PIKACI_STAGED_HOST_NIX_STORE_ROOT;"
            " ! touch /staged/linux-rust/workspace-deps/x /staged/linux-rust/workspace-build/x"
            " /mnt/pikaci-nix-store/x /mnt/data/x"
        ),
        workspace_deps=sources["deps"],
        workspace_build=sources["build"],
        nix_store=sources["store"],
        mounts=(Mount(source=sources["data"], path="/mnt/data"),),
        run_as_root=True,
    )

    job = await runs.run_one(spec)

    lines = output_of(job).splitlines()
    assert Outcome.PASSED == job.outcome
    assert [b"depsbuildstoredata", b"/mnt/pikaci-nix-store"] == lines[:2]
    assert all(not (Path(source) / "x").exists() for source in sources.values())


async def test_the_command_arrives_byte_for_byte(runs: Runs) -> None:
    """Quotes, line breaks, dollars, backslashes and spaces mean what they say."""
    text = "a  'b' \"c\" $HOME `id` \\n é\n\tz"
    quoted = text.replace("'", "'\\''")

    job = await runs.run_one(JobSpec(command=f"printf %s '{quoted}'"))

    assert text.encode() == output_of(job)


@pytest.mark.parametrize("root", [True, False], ids=["root", "pikaci"])
async def test_the_command_s_environment(runs: Runs, root: bool) -> None:
    """The contract's variables, the job's own, who runs it, and every directory is writable."""
    spec = JobSpec(
        command=(
            'for d in "$HOME" "$CARGO_HOME" "$CARGO_TARGET_DIR" "$XDG_CACHE_HOME"'
            ' "$XDG_STATE_HOME" /artifacts; do mkdir -p "$d"; touch "$d/probe"; done;'
            " test -s $SSL_CERT_FILE; test -s $NIX_SSL_CERT_FILE; id -u; id -g; pwd; env -0"
        ),
        run_as_root=root,
        env={"AWKWARD": "two\nlines = 'x'", "EMPTY": ""},
    )

    job = await runs.run_one(spec)

    uid, gid, cwd, rest = output_of(job).split(b"\n", 3)
    seen = dict(pair.split(b"=", 1) for pair in rest.split(b"\0") if b"=" in pair)
    assert Outcome.PASSED == job.outcome, output_of(job)
    assert ((b"0", b"0") if root else (b"1000", b"100")) == (uid, gid)
    assert b"/workspace/snapshot" == cwd
    expected = {
        b"HOME": b"/root" if root else b"/home/pikaci",
        b"CARGO_HOME": b"/cargo-home",
        b"CARGO_TARGET_DIR": b"/cargo-target",
        b"CARGO_INCREMENTAL": b"0",
        b"CARGO_TERM_COLOR": b"never",
        b"XDG_CACHE_HOME": b"/cargo-home/xdg-cache",
        b"XDG_STATE_HOME": b"/artifacts/xdg-state",
        b"AWKWARD": b"two\nlines = 'x'",
        b"EMPTY": b"",
        b"CI": b"true",
        b"PIKACI_JOB": b"job",
        b"PIKACI_RUN": job.run.encode(),
    }
    assert expected == {key: seen.get(key) for key in expected}
    assert b"PIKACI_STAGED_HOST_NIX_STORE_ROOT" not in seen
    assert not any(key.startswith(b"PIKACI_INCUS_") for key in seen)


async def test_no_network_means_only_the_loopback_interface(runs: Runs) -> None:
    """By default a guest has lo and nothing else."""
    job = await runs.run_one(JobSpec(command="ls /sys/class/net"))

    assert b"lo\n" == output_of(job)


async def test_limits_are_enforced(runs: Runs) -> None:
    """A job that eats memory or processes meets its own limits."""
    memory = JobSpec(
        command="head -c 400M /dev/zero | tail | wc -c", memory="128MiB", timeout_secs=60
    )
    # Not bash: it tries again for a quarter of a minute.
    fork = "[os.fork() or (time.sleep(30), os._exit(0)) for _ in range(200)]"
    processes = JobSpec(
        command=f"python3 -c 'import os, time; {fork}'", processes=64, timeout_secs=60
    )

    jobs = await runs.run({"memory": memory, "processes": processes})

    assert Outcome.FAILED == jobs["memory"].outcome
    assert Outcome.FAILED == jobs["processes"].outcome
    assert b"Resource temporarily unavailable" in log_of(jobs["processes"])


async def test_a_job_that_runs_too_long_is_timed_out_with_its_log(runs: Runs) -> None:
    """TERM is ignored, children hide in sessions of their own: all die, the log is there."""
    spec = JobSpec(
        command="trap '' TERM; (setsid sleep 300 &); nohup sleep 300 & echo begun; sleep 300",
        timeout_secs=1,
        deadlines=Deadlines(grace_secs=1),
    )

    job = await runs.run_one(spec)

    assert (State.RESULT_COLLECTED, Outcome.TIMED_OUT) == (job.state, job.outcome)
    assert "test command timed out after 1s" == job.message
    assert b"begun\n" in log_of(job)
    assert job.failure is not None
    assert FailureKind.TIMEOUT == job.failure.kind


async def test_every_byte_of_a_large_and_binary_log_arrives(runs: Runs) -> None:
    """100 MB of output, and all byte values, are on the host as the guest wrote them."""
    big, binary = await _two(
        runs,
        JobSpec(
            # Not `tee >(sha256sum ...)`: bash does not wait for what it substitutes.
            command="z() { head -c 100000000 /dev/zero; }; z | sha256sum >/artifacts/sum; z",
            artifacts=("sum",),
        ),
        JobSpec(command=r"for i in $(seq 0 255); do printf \\x$(printf %x $i); done"),
    )

    assert 100_000_000 == len(output_of(big))
    assert hashlib.sha256(output_of(big)).hexdigest().encode() == artifact(big, "sum").split()[0]
    assert bytes(range(256)) == output_of(binary)


async def test_two_runs_at_once_share_nothing(runs: Runs) -> None:
    """One job in two runs at once: own instances, own artifact directories, both right."""
    spec = JobSpec(command="echo $PIKACI_RUN > /artifacts/who; sleep 0.5", artifacts=("who",))
    jobs: list[Job] = []

    async def once() -> None:
        jobs.append(await runs.run_one(spec, settled=False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(once)
        nursery.start_soon(once)

    first, second = jobs
    assert first.run != second.run
    assert first.instance != second.instance
    assert {f"{job.run}\n".encode() for job in jobs} == {artifact(job, "who") for job in jobs}


async def test_a_forked_daemon_neither_delays_nor_outlives_the_job(runs: Runs) -> None:
    """What a job leaves running is dead before the result is there."""
    spec = JobSpec(command="setsid sh -c 'while :; do date >/artifacts/alive; done' & echo done")

    job = await runs.run_one(spec)

    assert (Outcome.PASSED, b"done\n") == (job.outcome, output_of(job))


async def test_a_job_that_fills_its_disk_gets_its_own_verdict(runs: Runs) -> None:
    """The disk's limit is the job's own; its code arrives, and what could be logged."""
    spec = JobSpec(
        command="head -c 2G /dev/zero > /artifacts/big || echo first; sleep 1; echo then; exit 6",
        disk="1GiB",
    )

    job = await runs.run_one(spec)

    assert (Outcome.FAILED, 6) == (job.outcome, job.exit_code)
    assert b"then\n" in log_of(job)


async def test_a_job_that_powers_off_ends_itself_and_is_no_test_failure(runs: Runs) -> None:
    """Root's power-off reaches the job's own namespace only: no verdict of the command, so none."""
    power_off = "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)"
    spec = JobSpec(command=f"echo last words; python3 -c '{power_off}'; sleep 60", run_as_root=True)

    job = await runs.run_one(spec)

    assert (State.FAILED, None) == (job.state, job.outcome)
    assert job.failure is not None
    assert FailureKind.INFRASTRUCTURE == job.failure.kind
    assert b"last words\n" in log_of(job)


async def test_a_guest_that_somebody_stops_is_no_test_failure(runs: Runs) -> None:
    """The message says what was seen, and what the command printed is on the host."""

    async def stop(entry: ev.Entry) -> None:
        (instance,) = await runs.instances()
        await runs.logged(entry.job, b"last words\n")
        await call(runs.incus, "stop", "--force", runs.incus.name(instance), deadline_secs=60)

    job = await runs.run_one(JobSpec(command="echo last words; sleep 60"), on_running=stop)

    assert (State.FAILED, None) == (job.state, job.outcome)
    assert job.failure is not None
    assert FailureKind.INFRASTRUCTURE == job.failure.kind
    assert "the instance is stopped" in job.failure.message
    assert b"last words\n" in log_of(job)


@pytest.mark.parametrize("root", [True, False], ids=["root", "pikaci"])
@pytest.mark.parametrize(
    "attack",
    [
        'echo \'{"schema":1,"status":"passed","exit_code":0}\' > /artifacts/result.json',
        "mkdir -p /artifacts/result.json/x",
        "mkfifo /artifacts/result.json",
        "ln -s /etc/passwd /artifacts/result.json",
        "rm -f /artifacts/guest.log; mkfifo /artifacts/guest.log",
        "rm -f /artifacts/guest.log; ln -s /etc/passwd /artifacts/guest.log",
    ],
    ids=["forged", "directory", "fifo", "link", "log-fifo", "log-link"],
)
async def test_a_hostile_job_cannot_change_its_verdict(runs: Runs, attack: str, root: bool) -> None:
    """Whatever a job puts in place of result and log, the true ones arrive."""
    job = await runs.run_one(JobSpec(command=f"echo before; {attack}; exit 3", run_as_root=root))

    assert (Outcome.FAILED, 3) == (job.outcome, job.exit_code)
    assert b"before\n" == output_of(job)


async def test_artifacts_are_collected_on_failure_and_links_are_refused(runs: Runs) -> None:
    """Declared globs arrive, also of a job that failed; a link is refused by name."""
    spec = JobSpec(
        command=(
            "mkdir -p /artifacts/reports/deep; echo 1 > /artifacts/reports/deep/a.xml;"
            " echo 2 > /artifacts/reports/b.xml; echo 3 > /artifacts/undeclared;"
            " ln -s /etc/shadow /artifacts/reports/c.xml; exit 1"
        ),
        artifacts=("reports/**",),
    )

    job = await runs.run_one(spec)

    assert Outcome.FAILED == job.outcome
    assert (b"1\n", b"2\n") == (artifact(job, "reports/deep/a.xml"), artifact(job, "reports/b.xml"))
    assert not (Path(job.artifacts or "") / "artifacts" / "undeclared").exists()
    assert not (Path(job.artifacts or "") / "artifacts" / "reports" / "c.xml").exists()
    assert any("reports/c.xml" in warning for warning in job.warnings)


@pytest.mark.parametrize("root", [True, False], ids=["root", "pikaci"])
async def test_scratch_makes_the_workspace_writable_for_the_job_alone(
    runs: Runs, root: bool
) -> None:
    """With `scratch` a job writes beside its sources; the host's tree and snapshot stay."""
    spec = JobSpec(
        command="echo changed > hello.txt; echo new > made; cat hello.txt made; mkdir d; ls",
        scratch=True,
        run_as_root=root,
    )

    job = await runs.run_one(spec)
    again = await runs.run_one(JobSpec(command="cat hello.txt; ls"))

    assert (Outcome.PASSED, b"changed\nnew\nd\nhello.txt\nmade\n") == (job.outcome, output_of(job))
    assert b"hello\nhello.txt\n" == output_of(again)
    assert "hello\n" == (runs.workspace / "hello.txt").read_text()


async def test_scratch_refuses_only_to_rename_a_directory_of_the_tree(runs: Runs) -> None:
    """As documented: `mv` copies it; files, and directories that the job made, are renamed."""
    (runs.workspace / "d").mkdir()
    (runs.workspace / "d" / "f").touch()
    rename = "python3 -c 'import os, sys; os.rename(*sys.argv[1:])'"
    spec = JobSpec(
        command=(
            f"({rename} d e || :) 2>&1 | tail -n 1 | grep -o 'Invalid cross-device link'; mv d e; ls e;"
            f" {rename} hello.txt h; mkdir made; {rename} made m; ls"
        ),
        scratch=True,
    )
    job = await runs.run_one(spec)

    assert (Outcome.PASSED, b"Invalid cross-device link\nf\ne\nh\nm\n") == (
        job.outcome,
        output_of(job),
    )


async def test_a_read_only_failure_names_the_way_out(runs: Runs) -> None:
    """A command that fails on the read-only workspace is told of `scratch`."""
    job = await runs.run_one(JobSpec(command="touch new"))

    assert Outcome.FAILED == job.outcome
    assert "scratch = true" in job.hint


async def test_a_mount_that_is_missing_in_the_guest_is_named(runs: Runs) -> None:
    """An empty directory in place of a mount is not ready: the job fails at its deadline."""

    def without_the_mount(argv: tuple[str, ...]) -> tuple[str, ...]:
        return tuple("/workspace" if word == "/workspace/snapshot" else word for word in argv)

    spec = JobSpec(command="true", deadlines=Deadlines(ready_secs=1))

    job = await runs.run_one(spec, change=without_the_mount)

    assert State.FAILED == job.state
    assert job.failure is not None
    assert "devices_configured" == job.failure.phase
    assert "within 1 s: the mount /workspace is missing" in job.failure.message


async def test_a_missing_image_is_refused_before_there_is_a_job(runs: Runs) -> None:
    """The message names alias, project and host, and the command that makes an image."""
    with pytest.raises(SpecError) as refused, one_error():
        await runs.run_one(JobSpec(command="true", image="no/such"))

    for word in ("no/such", "pikaci", "local"):
        assert word in str(refused.value)
    assert "pikaci image build" in refused.value.resolution


async def test_a_mount_source_that_vanishes_is_infrastructure_and_named(runs: Runs) -> None:
    """Gone between check and create, it fails the job with Incus's words."""
    source = runs.workspace.parent / "vanishing"
    source.mkdir()
    spec = JobSpec(command="true", mounts=(Mount(source=str(source), path="/mnt/data"),))

    def vanish(argv: tuple[str, ...]) -> tuple[str, ...]:
        if argv[1] == "launch" and source.exists():
            source.rmdir()
        return argv

    job = await runs.run_one(spec, change=vanish)

    assert State.FAILED == job.state
    assert job.failure is not None
    assert str(source) in job.failure.message


async def _two(runs: Runs, first: JobSpec, second: JobSpec):  # type: ignore[no-untyped-def]
    jobs = await runs.run({"first": first, "second": second})
    return jobs["first"], jobs["second"]
