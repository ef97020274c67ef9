"""Plans and the commands made from them, as data."""

import json
from datetime import timedelta

import msgspec
import yaml
from hypothesis import given

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import Plan, instance_name, lease_secs, make_plan
from orchestrator.contract import guest_files
from orchestrator.incus import stdin_of
from states.spec import InstanceType, Mount
from tests.samples import sample_remote_context, sample_shell_job, valid_specs

DEVICE_PATHS = {
    "pikaci-snapshot": "/workspace/snapshot",
    "pikaci-nix-store": "/mnt/pikaci-nix-store",
    "pikaci-workspace-deps": "/staged/linux-rust/workspace-deps",
    "pikaci-workspace-build": "/staged/linux-rust/workspace-build",
}
FULL = {"nix_store": "/nix/store", "workspace_deps": "/deps", "workspace_build": "/build"}


def test_a_container_gets_the_four_devices_shifted_and_read_only() -> None:
    """The names and paths are the contract's; a container has shift and no io.bus."""
    plan = make_plan(sample_shell_job(**FULL), sample_remote_context())

    shares = {name: device for name, device in plan.devices.items() if name != "root"}

    assert DEVICE_PATHS == {name: device["path"] for name, device in shares.items()}
    for device in shares.values():
        assert ("true", "true") == (device["readonly"], device["shift"])
        assert "io.bus" not in device


def test_a_virtual_machine_gets_virtiofs_without_shift() -> None:
    """The same devices, over virtiofs, as Incus demands of a VM."""
    spec = sample_shell_job(instance_type=InstanceType.VIRTUAL_MACHINE, **FULL)

    plan = make_plan(spec, sample_remote_context())

    for name in DEVICE_PATHS:
        device = plan.devices[name]
        assert ("true", "virtiofs", "false") == (
            device["readonly"],
            device["io.bus"],
            device["shift"],
        )
    assert "--vm" in commands.create(plan).args


def test_only_the_snapshot_is_mounted_for_a_plain_job() -> None:
    """The three other devices are there when the job has them, and only then."""
    plan = make_plan(sample_shell_job(), sample_remote_context())

    assert {"root", "pikaci-snapshot"} == set(plan.devices)
    assert ("/workspace/snapshot",) == plan.mounts


def test_no_network_unless_it_is_named() -> None:
    """Without `network` the guest has no interface of its own; with it, one on that network."""
    with_network = make_plan(sample_shell_job(network="incusbr0"), sample_remote_context())
    without = make_plan(sample_shell_job(), sample_remote_context())

    nics = [d for d in without.devices.values() if d["type"] == "nic"]

    assert [] == nics
    assert {"type": "nic", "name": "eth0", "network": "incusbr0"} == with_network.devices["eth0"]


def test_the_run_command_ends_with_the_three_variables_and_the_runner() -> None:
    """The exec's tail is exact, and the command stands in one argument as it is."""
    awkward = "echo \"$HOME\" 'q'\n\tprintf %s 'é'"
    plan = make_plan(
        sample_shell_job(command=awkward, timeout_secs=7, run_as_root=True),
        sample_remote_context(),
    )

    argv = commands.run(plan, stdin=stdin_of(bytes)).args

    assert "--env=PIKACI_INCUS_NEEDS_NONCE=1" in argv[: argv.index("--")]
    assert [
        "--",
        "env",
        f"PIKACI_INCUS_GUEST_COMMAND={awkward}",
        "PIKACI_INCUS_TIMEOUT_SECS=7",
        "PIKACI_INCUS_RUN_AS_ROOT=1",
        "/run/current-system/sw/bin/pikaci-incus-run",
    ] == list(argv[argv.index("--") :])


def test_every_exec_looks_for_programs_where_the_job_does() -> None:
    """In a guest of NixOS they are in a place that Incus's own PATH leaves out."""
    plan = make_plan(sample_shell_job(), sample_remote_context())
    runner = (guest_files() / "pikaci-incus-run").read_text()

    calls = [
        commands.ready(plan),
        commands.run(plan, stdin=stdin_of(bytes)),
        commands.follow(plan, 0),
        commands.cancel(plan),
        commands.collect(plan, ["true"]),
    ]

    for argv in (effect.args for effect in calls):
        (option,) = (word for word in argv[: argv.index("--")] if word.startswith("--env=PATH="))
        assert f"export {option.removeprefix('--env=')}\n" in runner


def test_environment_and_nonce_go_over_stdin_only() -> None:
    """What the job's `env` says, and the nonce, stand in no argument and no configuration."""
    plan = make_plan(sample_shell_job(env={"TOKENISH": "v4lue"}), sample_remote_context())

    stdin = commands.runner_stdin(plan, "n0nce", {}, lease_secs=9)
    visible = json.dumps(
        [
            commands.create(plan).args,
            commands.run(plan, stdin=stdin_of(bytes)).args,
            plan.config,
            plan.devices,
        ]
    )

    pairs = dict(pair.split("=", 1) for pair in stdin.decode().split("\0")[:-1])
    assert ("v4lue", "n0nce") == (pairs["TOKENISH"], pairs["PIKACI_INCUS_NONCE"])
    assert "v4lue" not in visible
    assert "n0nce" not in visible


def test_the_guest_learns_when_its_lease_ends() -> None:
    """In seconds from the runner's start, and before the nonce, which comes last."""
    context = sample_remote_context()
    plan = make_plan(sample_shell_job(timeout_secs=60), context)

    left = plan.lease_left_secs(context.lease_ends - timedelta(seconds=1234.5))
    pairs = commands.runner_stdin(plan, "n0nce", {}, lease_secs=left).decode().split("\0")

    assert "PIKACI_INCUS_LEASE_SECS=1235" in pairs[:-2]
    assert ["PIKACI_INCUS_NONCE=n0nce", ""] == pairs[-2:]


def test_a_runner_that_is_started_late_has_its_time() -> None:
    """After a restart of ours the lease may be nearly over, and the command is not."""
    context = sample_remote_context()
    plan = make_plan(sample_shell_job(timeout_secs=60), context)

    left = plan.lease_left_secs(context.lease_ends)

    assert plan.run_deadline_secs + plan.deadlines.collect_secs == left


def test_the_job_learns_where_it_runs() -> None:
    """CI, the job, the run and the commit are in the environment, whatever `env` says."""
    context = sample_remote_context(run="r1", name="lint", commit="c0ffee")

    plan = make_plan(sample_shell_job(env={"CI": "maybe"}), context)

    assert {
        "CI": "maybe",
        "PIKACI_JOB": "lint",
        "PIKACI_RUN": "r1",
        "PIKACI_COMMIT": "c0ffee",
    } == plan.environment


def test_limits_and_tags_are_in_the_configuration() -> None:
    """Incus enforces the limits, and every instance says whose it is."""
    spec = sample_shell_job(cpus=3, memory="1GiB", disk="2GiB", processes=99)

    plan = make_plan(spec, sample_remote_context(owner="me", job="r.1", attempt=2))

    assert ("3", "1GiB", "99") == tuple(
        plan.config[f"limits.{key}"] for key in ("cpu", "memory", "processes")
    )
    assert "2GiB" == plan.devices["root"]["size"]
    assert ("me", "r.1", "2") == tuple(
        plan.config[f"user.pikaci.{key}"] for key in ("owner", "job", "attempt")
    )


def test_instance_names_differ_by_owner_job_and_attempt() -> None:
    """Names are hashes that Incus accepts, and no two attempts share one."""
    names = {
        instance_name(owner, job, attempt)
        for owner in ("a", "b")
        for job in ("r.1", "r.2")
        for attempt in (1, 2)
    }

    assert 8 == len(names)
    assert all(name.replace("-", "").isalnum() and len(name) < 63 for name in names)


def test_the_guest_s_limit_lies_below_the_host_s() -> None:
    """A guest reports its timeout before the host gives up, and a lease outlasts both."""
    spec = sample_shell_job(timeout_secs=10)
    plan = make_plan(spec, sample_remote_context())

    assert plan.run_deadline_secs > spec.timeout_secs + plan.deadlines.grace_secs
    assert lease_secs(spec) > plan.run_deadline_secs


@given(valid_specs())
def test_a_plan_survives_yaml(spec) -> None:  # type: ignore[no-untyped-def]
    """A plan written as YAML and read again is the same plan, for specs of every shape."""
    plan = make_plan(spec, sample_remote_context())

    written = yaml.safe_dump(msgspec.to_builtins(plan))

    assert plan == msgspec.convert(yaml.safe_load(written), Plan)


@given(valid_specs())
def test_the_create_document_is_yaml(spec) -> None:  # type: ignore[no-untyped-def]
    """What goes to the create command's stdin is read by a YAML parser as it was meant."""
    plan = make_plan(spec, sample_remote_context())

    document = yaml.safe_load(commands.create_document(plan))

    assert (plan.config, plan.devices) == (document["config"], document["devices"])


def test_no_mount_of_a_plan_is_writable() -> None:
    """Every share with the host is read-only, the user's own mounts too."""
    spec = sample_shell_job(mounts=(Mount(source="/srv/data", path="/mnt/data"),), **FULL)

    plan = make_plan(spec, sample_remote_context())

    shares = [device for device in plan.devices.values() if "source" in device]
    assert 5 == len(shares)
    assert {"true"} == {device["readonly"] for device in shares}
    assert plan.mounts[-1] == "/mnt/data"


def test_every_command_names_the_remote() -> None:
    """A user's default remote can never be meant."""
    plan = make_plan(sample_shell_job(), sample_remote_context())

    for effect in commands.of(plan):
        assert any(word.startswith("local:") for word in effect.args), effect.name
