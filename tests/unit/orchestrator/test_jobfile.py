"""The job file: what it means, and one clear line for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import NoJobs, UsageError
from orchestrator.jobfile import JobFile, load, select
from states.errors import MOST_MISTAKES, PikaciError
from states.spec import InstanceType, JobSpec, Mount, SecretSource, keep_secs


def write(base: Path, text: str | bytes) -> Path:
    path = base / "pikaci.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def loaded(base: Path, text: str) -> JobFile:
    return load(write(base, text))


def chosen(base: Path, text: str) -> JobSpec:
    """The one job of a file, as it is to run on this machine."""
    (spec,) = select(loaded(base, text), ()).values()
    return spec


def job(text: str) -> str:
    """A file with one job that has these lines beside a command."""
    return f'schema = 1\n[jobs.lint]\ncommand = "make lint"\n{text}\n'


def test_every_key_arrives(tmp_path: Path) -> None:
    """All keys of a job, with paths made real and absolute from the file's directory."""
    for name in ("deps", "build", "store", "data"):
        (tmp_path / name).mkdir()
    spec = chosen(
        tmp_path,
        job(
            """
            timeout_secs = 7
            run_as_root = true
            description = "d"
            image = "my/image"
            instance_type = "virtual-machine"
            cpus = 3
            memory = "1GiB"
            disk = "2GiB"
            processes = 99
            network = "incusbr0"
            scratch = true
            env = { A = "1" }
            artifacts = ["junit.xml"]
            workspace_deps = "deps"
            workspace_build = "./build"
            nix_store = "store/../store"
            mounts = [{ source = "data", path = "/mnt/data" }]
            retries = 0
            """
        ),
    )

    assert ("make lint", 7, True, "d", "my/image") == (
        spec.command,
        spec.timeout_secs,
        spec.run_as_root,
        spec.description,
        spec.image,
    )
    assert (InstanceType.VIRTUAL_MACHINE, 3, "1GiB", "2GiB", 99, "incusbr0", True) == (
        spec.instance_type,
        spec.cpus,
        spec.memory,
        spec.disk,
        spec.processes,
        spec.network,
        spec.scratch,
    )
    assert ({"A": "1"}, ("junit.xml",), 0) == (spec.env, spec.artifacts, spec.retries)
    assert [str(tmp_path / name) for name in ("deps", "build", "store")] == [
        spec.workspace_deps,
        spec.workspace_build,
        spec.nix_store,
    ]
    assert (Mount(source=str(tmp_path / "data"), path="/mnt/data"),) == spec.mounts


def test_defaults_lie_below_every_job(tmp_path: Path) -> None:
    """A job's own key counts; of `env`, each name."""
    jobs = loaded(
        tmp_path,
        """
        schema = 1
        [defaults]
        timeout_secs = 5
        env = { A = "default", B = "default" }
        [jobs.one]
        command = "1"
        env = { B = "own" }
        [jobs.two]
        command = "2"
        timeout_secs = 6
        """,
    ).jobs

    assert (5, {"A": "default", "B": "own"}) == (jobs["one"].timeout_secs, jobs["one"].env)
    assert (6, {"A": "default", "B": "default"}) == (jobs["two"].timeout_secs, jobs["two"].env)


def test_a_writable_job_is_read_and_left_to_be_rejected(tmp_path: Path) -> None:
    """The file is right; the job is refused with its own words when it is to run."""
    jobs = loaded(tmp_path, job("writable_workspace = true")).jobs

    assert jobs["lint"].writable_workspace


def test_jobs_are_selected_by_name(tmp_path: Path) -> None:
    """All without a name, else the named ones in that order; an unknown one has the nearest."""
    file = loaded(tmp_path, 'schema = 1\n[jobs.a]\ncommand = "1"\n[jobs.bee]\ncommand = "2"')

    assert ["a", "bee"] == list(select(file, ()))
    assert ["bee", "a"] == list(select(file, ("bee", "a", "bee")))
    with pytest.raises(UsageError, match="no job 'bea': did you mean `bee`"):
        select(file, ("bea",))
    with pytest.raises(UsageError, match="no job 'x'") as caught:
        select(file, ("x", "bea"))
    assert "did you mean `bee`" in caught.value.brief
    assert "the jobs are: a, bee" == caught.value.resolution


def test_jobs_are_selected_by_globs(tmp_path: Path) -> None:
    """Each once, those of a glob in the order of the file; a name is no glob."""
    names = ("test-b", "lint", "test-a", "rust/test", "rust/lint")
    tables = "".join(f'[jobs."{name}"]\ncommand = "x"\n' for name in names)
    found = load(write(tmp_path, f"schema = 1\n{tables}"))

    assert ["test-b", "test-a"] == list(select(found, ["test-*"]))
    assert ["test-a", "test-b"] == list(select(found, ["test-a", "test-[ab]"]))
    assert ["rust/test", "rust/lint"] == list(select(found, ["rust/????"]))
    assert list(names) == list(select(found, ["*"]))


@pytest.mark.parametrize(
    ("glob", "told", "next_step"),
    [
        ("tset-*", "no job matches 'tset-*': did you mean `test-a`?", ""),
        ("x*", "no job matches 'x*'", "the jobs are: lint, test-a"),
        ("Test*", "no job matches 'Test*'", ""),
    ],
)
def test_a_glob_that_matches_nothing_is_an_error(
    tmp_path: Path, glob: str, told: str, next_step: str
) -> None:
    """With the nearest name, or all of them."""
    jobs = 'schema = 1\n[jobs.lint]\ncommand = "x"\n[jobs.test-a]\ncommand = "x"\n'
    found = load(write(tmp_path, jobs))

    with pytest.raises(UsageError) as refused:
        select(found, ["lint", glob])

    assert told in refused.value.brief
    assert next_step in refused.value.resolution


def test_secrets_are_merged_and_their_files_are_made_absolute(tmp_path: Path) -> None:
    """From the job file's directory, as a name: a link is followed when the file is read."""
    (tmp_path / "link").symlink_to("elsewhere")

    secrets = (
        loaded(
            tmp_path,
            """
        schema = 1
        [defaults.secrets]
        A = { env = "HOST_A" }
        B = { env = "HOST_B" }
        [jobs.one]
        command = "1"
        [jobs.one.secrets]
        B = { file = "link" }
        """,
        )
        .jobs["one"]
        .secrets
    )

    assert {
        "A": SecretSource(env="HOST_A"),
        "B": SecretSource(file=str(tmp_path / "link")),
    } == secrets


@pytest.mark.parametrize(
    "line",
    [
        'secrets = { TOKEN = "s3cr3t" }',
        'secrets = "s3cr3t"',
        'secrets = { TOKEN = { value = "s3cr3t" } }',
        'secrets = { TOKEN = { env = "s3cr3t !" } }',
        'secrets = { TOKEN = { file = 1 }, OTHER = "s3cr3t" }',
    ],
)
def test_a_secret_in_the_place_of_its_source_is_not_shown(tmp_path: Path, line: str) -> None:
    """A mistake that is easily made must not put it into the log of a forge."""
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, job(line))

    told = caught.value.brief + caught.value.details + caught.value.resolution
    assert "jobs.lint.secrets" in told
    assert "s3cr3t" not in told


MOUNT = 'mounts = [{{ source = ".", path = "{}" }}]'
BAD = [
    ("unknown top-level key", "schema = 1\njob = 1", "job is an unknown key: did you mean `jobs`?"),
    ("unknown key", job("timeout = 5"), "jobs.lint.timeout is an unknown key"),
    ("near key", job("timeout_sec = 5"), "did you mean `timeout_secs`?"),
    ("unknown default", 'schema = 1\n[defaults]\ncpu = 1\n[jobs.a]\ncommand = "x"', "defaults.cpu"),
    ("bad default", 'schema = 1\n[defaults]\ncpus = 0\n[jobs.a]\ncommand = "x"', "defaults.cpus"),
    ("wrong type", job('timeout_secs = "5"'), "timeout_secs is '5'; allowed: a whole number"),
    ("near value", job('instance_type = "contianer"'), "is 'contianer': did you mean `container`?"),
    ("near key of a mount", job('mounts = [{ sorce = ".", path = "/m" }]'), "mounts[0].sorce"),
    ("no command", "schema = 1\n[jobs.lint]\ncpus = 1", "jobs.lint.command"),
    ("empty command", 'schema = 1\n[jobs.lint]\ncommand = " "', "jobs.lint.command is empty"),
    ("zero timeout", job("timeout_secs = 0"), "jobs.lint.timeout_secs"),
    (
        "negative timeout",
        job("timeout_secs = -1"),
        "timeout_secs is -1; allowed: a whole number from 1 to 604800",
    ),
    ("huge timeout", job("timeout_secs = 999999999"), "is 999999999"),
    ("job name", 'schema = 1\n[jobs."a b"]\ncommand = "x"', "jobs.'a b'"),
    ("env name", job('env = { "A-B" = "1" }'), "jobs.lint.env"),
    ("env value", job("env = { A = 1 }"), "jobs.lint.env"),
    ("reserved env", job('env = { PIKACI_JOB = "1" }'), "jobs.lint.env.PIKACI_JOB is reserved"),
    ("secret of nothing", job("secrets = { A = {} }"), "jobs.lint.secrets.A has no source"),
    (
        "secret and env",
        job('env = { A = "1" }\nsecrets = { A = { env = "A" } }'),
        "secrets.A is also in",
    ),
    (
        "reserved secret",
        job('secrets = { PIKACI_X = { env = "A" } }'),
        "secrets.PIKACI_X is reserved",
    ),
    ("relative mount", job(MOUNT.format("mnt")), "jobs.lint.mounts[0].path"),
    ("mount with ..", job(MOUNT.format("/mnt/../etc")), "jobs.lint.mounts[0].path"),
    ("mount over /run", job(MOUNT.format("/run/x")), "collides with /run"),
    ("mount over /artifacts", job(MOUNT.format("/artifacts")), "collides with /artifacts"),
    ("mount over /", job(MOUNT.format("/")), "jobs.lint.mounts[0].path"),
    (
        "two mounts on one path",
        job('mounts = [{ source = ".", path = "/m" }, { source = ".", path = "/m/" }]'),
        "jobs.lint.mounts[1].path",
    ),
    ("mount key", job('mounts = [{ source = ".", path = "/m", rw = true }]'), "jobs.lint.mounts"),
    ("instance type", job('instance_type = "docker"'), "jobs.lint.instance_type"),
    ("size", job('memory = "lots"'), "jobs.lint.memory"),
    ("remote image", job('image = "other:img"'), "jobs.lint.image"),
    ("artifact outside", job('artifacts = ["../x"]'), "jobs.lint.artifacts[0]"),
    ("no schema", '[jobs.a]\ncommand = "x"', "schema is missing"),
    ("schema 2", 'schema = 2\n[jobs.a]\ncommand = "x"', "schema is 2"),
    ("empty", "", "schema is missing"),
    ("not TOML", "schema = = 1", "is not TOML"),
    ("not UTF-8", b"schema = 1 # \xff", "is not UTF-8: line 1"),
    ("UTF-16", "schema = 1".encode("utf-16"), "is not UTF-8, but UTF-16"),
    ("UTF-16 without a mark", "schema = 1".encode("utf-16-le"), "is not UTF-8, but UTF-16"),
    ("UTF-16 big endian", b"\xfe\xff" + "schema = 1".encode("utf-16-be"), "UTF-16 or the like"),
    ("UTF-32", "schema = 1".encode("utf-32"), "is not UTF-8, but UTF-16 or the like"),
    ("NUL", b"schema = 1\n\0", "is not TOML"),
    ("a mark in the middle", "schema = 1\n\ufeff[jobs]", "is not TOML"),
    ("two marks", "\ufeff\ufeffschema = 1", "is not TOML"),
    ("jobs no table", "schema = 1\njobs = 3", "jobs is 3"),
    ("job no table", "schema = 1\njobs.lint = 3", "jobs.lint is 3"),
    ("include", job("[snapshot]\ninclude = 1"), "snapshot.include"),
    ("exclude", job('[snapshot]\nexclude = ["a", ""]'), "snapshot.exclude"),
    ("git", job('[snapshot]\ngit = "yes"'), "snapshot.git is 'yes'; allowed: true or false"),
    ("too big", b"#" * (2 << 20), "has more than"),
]


def test_a_byte_order_mark_is_not_part_of_the_file(tmp_path: Path) -> None:
    """Some editors write it, and nobody sees it; line numbers stay right."""
    with_mark = load(write(tmp_path, "\ufeff" + job("cpus = 3")))

    assert 3 == with_mark.jobs["lint"].cpus
    with pytest.raises(UsageError, match="line 2"):
        loaded(tmp_path, "\ufeffschema = 1\n= 2")


@pytest.mark.parametrize(("text", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_one_clear_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    """It names the file, the key, what is wrong, and what is allowed."""
    path = write(tmp_path, text)

    with pytest.raises(UsageError) as caught:
        load(path)

    told = caught.value.brief if not caught.value.details else caught.value.details
    assert words in told
    for line in told.splitlines():
        assert line.startswith(f"{path}:")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """A line each, in the order of the file's parts; what comes from the defaults once."""
    path = write(
        tmp_path,
        """
        schema = 1
        [default]
        [defaults]
        env = { PIKACI_X = "1" }
        [jobs.lint]
        command = "x"
        timeout = 5
        memory = "lots"
        [jobs.test]
        command = " "
        artifacts = ["/x", "ok", "../y"]
        mounts = [{ source = ".", path = "/run" }, { source = ".", path = "m" }]
        [jobs.docs]
        command = "y"
        """,
    )

    with pytest.raises(UsageError) as caught:
        load(path)

    assert f"{path} has 9 mistakes" == caught.value.brief
    assert [
        "default is an unknown key: did you mean `defaults`?",
        "jobs.lint.timeout is an unknown key: did you mean `timeout_secs`?",
        "jobs.lint.memory is 'lots'; allowed: a size with its unit, for example 4GiB or 500MB",
        "jobs.test.command is empty; allowed: a shell command",
        "defaults.env.PIKACI_X is reserved; allowed: names that do not start with PIKACI_",
        "jobs.test.artifacts[0] '/x' is not a glob below /artifacts; allowed: for example"
        " `reports/**/*.xml`",
        "jobs.test.artifacts[2] '../y' is not a glob below /artifacts; allowed: for example"
        " `reports/**/*.xml`",
        "jobs.test.mounts[0].path '/run' collides with /run, which belongs to the guest; allowed:"
        " a path of your own, for example /mnt/data",
        "jobs.test.mounts[1].path 'm' is not a plain absolute path; allowed: an absolute guest"
        " path without `.`, `..` or empty parts",
    ] == [line.removeprefix(f"{path}: ") for line in caught.value.details.splitlines()]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    """What is told has a bound."""
    path = write(tmp_path, "schema = 1\n" + "".join(f"x{n} = 1\n" for n in range(500)))

    with pytest.raises(UsageError, match="has 500 mistakes") as caught:
        load(path)

    assert MOST_MISTAKES + 1 == len(caught.value.details.splitlines())
    assert caught.value.details.endswith(f"and {500 - MOST_MISTAKES} more")


def test_only_selected_jobs_are_checked_against_this_machine(tmp_path: Path) -> None:
    """A directory that another job mounts need not be there; all that lack are told."""
    file = loaded(
        tmp_path,
        """
        schema = 1
        [jobs.lint]
        command = "x"
        [jobs.test]
        command = "y"
        nix_store = "no/such"
        mounts = [{ source = "gone", path = "/mnt/a" }, { source = "/proc", path = "/mnt/b" }]
        """,
    )

    assert ["lint"] == list(select(file, ("lint",)))
    with pytest.raises(UsageError, match="has 3 mistakes") as caught:
        select(file, ())
    assert (
        f"jobs.test.nix_store '{tmp_path}/no/such' is not a directory; allowed: an existing"
        in caught.value.details
    )
    assert f"jobs.test.mounts[0].source '{tmp_path}/gone'" in caught.value.details
    assert "jobs.test.mounts[1].source '/proc' is /proc" in caught.value.details


def test_a_file_without_jobs_is_a_case_of_its_own(tmp_path: Path) -> None:
    """It has an exit code of its own."""
    with pytest.raises(NoJobs):
        loaded(tmp_path, "schema = 1")


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    """With what to do next; a directory in its place too."""
    with pytest.raises(UsageError, match="no such job file"):
        load(tmp_path / "pikaci.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)


VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-10, 10**12), st.text(max_size=8), st.floats(allow_nan=False)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "command",
        "timeout_secs",
        "env",
        "secrets",
        "mounts",
        "artifacts",
        "cpus",
        "memory",
        "nix_store",
        "x",
    ]
)


def toml(value: object) -> str:
    """A value as inline TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000)
        return f'"{escaped}"'
    return repr(value)


@given(jobs=st.dictionaries(st.text(max_size=6), st.dictionaries(KEYS, VALUES, max_size=4)))
def test_no_structure_crashes_the_reader(tmp_path: Path, jobs: dict[str, object]) -> None:
    """Random jobs are read, or refused with an error of ours."""
    try:
        loaded(tmp_path, f"schema = 1\njobs = {toml(jobs)}")
    except PikaciError:
        pass


@given(data=st.binary(max_size=300))
def test_no_bytes_crash_the_reader(tmp_path: Path, data: bytes) -> None:
    """Random bytes are refused with an error of ours."""
    with pytest.raises(PikaciError):
        load(write(tmp_path, data))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("timeout_secs = " + "1" * 5000, "is not TOML"),
        ('workspace_deps = "' + "a" * 5000 + '"', "is not a directory"),
    ],
)
def test_endless_values_are_errors_of_the_file(tmp_path: Path, line: str, words: str) -> None:
    """A number that Python will not read, a path that no file system holds."""
    file = tmp_path / "pikaci.toml"
    file.write_text(f'schema = 1\n[jobs.a]\ncommand = "x"\n{line}\n')

    with pytest.raises(UsageError, match=words):
        select(load(file), ())


def test_a_job_keeps_no_guest_although_the_defaults_do(tmp_path: Path) -> None:
    file = loaded(
        tmp_path,
        """
        schema = 1
        [defaults]
        keep = "failure"
        keep_secs = 7200
        [jobs.test]
        command = "make test"
        [jobs.lint]
        command = "make lint"
        keep = "never"
        """,
    )

    kept = {name: keep_secs(spec, 60.0) for name, spec in select(file, ()).items()}
    assert {"test": 7200, "lint": None} == kept
