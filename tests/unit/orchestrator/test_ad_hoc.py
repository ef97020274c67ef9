"""One command as a job, from the words of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli import ad_hoc
from orchestrator.cli.ad_hoc import ad_hoc_job, ad_hoc_options, refuse_flags
from orchestrator.cli.run import RunCommand
from orchestrator.errors import UsageError
from states.spec import JobSpec, SecretSource
from tests.unit.orchestrator.test_ending import ended, start


def job(*args: str, below: str = "") -> JobSpec:
    """The job that `run` makes of its arguments."""
    found: list[JobSpec] = []

    @click.command(cls=RunCommand)
    @ad_hoc_options
    @click.pass_context
    def command(ctx: click.Context, **flags: Any) -> None:
        found.extend(ad_hoc_job(ctx.meta["ad_hoc"], flags, below).values())

    done = CliRunner().invoke(command, args, standalone_mode=False)
    if done.exception:
        raise done.exception
    return found[0]


def test_every_flag_sets_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without flags the job has the defaults."""
    monkeypatch.setenv("HERE", "a b")

    full = job(
        *"--image my/dev --timeout 1h30m --memory 8GiB --cpus 3 --env A=1=2 --env HERE".split(),
        *"--secret TOKEN --secret KEY=env:OTHER --secret PEM=file:keys/x".split(),
        *("--egress", "example.org", "--egress", "*.example.org:8443"),
        *(
            "--artifact",
            "reports/**",
            "--artifact",
            "*.xml",
            "--junit",
            "junit.xml",
            "--scratch",
            "--root",
            "--",
            "make",
        ),
    )

    assert full == JobSpec(
        command="make",
        image="my/dev",
        timeout_secs=5400,
        memory="8GiB",
        cpus=3,
        env={"A": "1=2", "HERE": "a b"},
        secrets={
            "TOKEN": SecretSource(env="TOKEN"),
            "KEY": SecretSource(env="OTHER"),
            "PEM": SecretSource(file=str(Path.cwd() / "keys/x")),
        },
        egress=("example.org", "*.example.org:8443"),
        artifacts=("reports/**", "*.xml"),
        junit=("junit.xml",),
        scratch=True,
        run_as_root=True,
    )
    assert JobSpec(command="make") == job("--", "make")


@pytest.mark.parametrize(
    ("text", "secs"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d2h3m4s", 93_784)]
)
def test_times_have_units(text: str, secs: int) -> None:
    """Seconds without one, as in the job file."""
    assert secs == ad_hoc.time(text)


@pytest.mark.parametrize("text", ["", "m", "1x", "-1", "1.5h", "5m1h", "1 h", "١"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With examples of what is one."""
    with pytest.raises(click.BadParameter, match="write 90s"):
        ad_hoc.time(text)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--memory", "8"], "--memory is '8'"),
        (["--memory", "1MiB"], "--memory 1MiB is too little"),
        (["--timeout", "0"], "--timeout is 0"),
        (["--timeout", "8d"], "--timeout is 691200"),
        (["--cpus", "0"], "--cpus is 0"),
        (["--image", "remote:x"], "--image is 'remote:x'"),
        (["--env", "1A=x"], "--env has the name '1A'"),
        (["--env", "UID=x"], "--env UID "),
        (["--env", "NOT_THERE"], "--env NOT_THERE: there is no such variable here"),
        (["--env", "A=1", "--secret", "A"], "--secret A is also in `env`"),
        (["--egress", "http://example.org"], "--egress "),
        (["--junit", "../x"], "--junit '../x' is not a glob below /artifacts"),
        (["--artifact", "/etc/*"], "--artifact '/etc/*' is not a glob below /artifacts"),
    ],
)
def test_a_wrong_value_is_told_with_its_flag(args: list[str], told: str) -> None:
    """Not with a key of a file that is not there; and with what is allowed."""
    with pytest.raises(UsageError) as refused:
        job(*args, "--", "true")

    assert told in refused.value.brief
    assert refused.value.resolution


def test_several_wrong_values_are_told_at_once() -> None:
    """A line each."""
    with pytest.raises(UsageError) as refused:
        job("--memory", "8", "--cpus", "0", "--", "true")

    assert "2 flags are wrong" == refused.value.brief
    assert 2 == len(refused.value.details.splitlines())


@pytest.mark.parametrize("text", ["TOKEN=hunter2", "TOKEN=", "TOKEN=env:", "TOKEN=vault:hunter2"])
def test_a_secret_on_the_command_line_is_refused_and_not_shown(text: str) -> None:
    """Its name is, and how to pass it."""
    with pytest.raises(UsageError) as refused:
        job("--secret", text, "--", "true")

    assert "--secret TOKEN" in refused.value.brief
    assert "hunter2" not in f"{refused.value.brief} {refused.value.resolution}"
    assert "TOKEN=file:PATH" in refused.value.resolution


def test_flags_without_a_command_are_refused() -> None:
    """Jobs have their settings in the job file."""
    refuse_flags({"image": None, "scratch": False, "env": ()})
    with pytest.raises(UsageError, match="--timeout, --root: only for a command after `--`"):
        refuse_flags({"timeout_secs": 5, "image": None, "run_as_root": True})


def test_a_flag_beside_job_names_touches_nothing(tmp_path: Path) -> None:
    """Exit code 2, one line."""
    (tmp_path / "pikaci.toml").write_text('schema = 1\n[jobs.test]\ncommand = "x"\n')

    code, errors = ended(start(tmp_path / "root", "run", "--cpus", "2", "test", cwd=tmp_path,
                               env={"PYTHONPATH": str(Path.cwd())}))  # fmt: skip

    assert 2 == code
    assert errors.startswith("pikaci: --cpus: only for a command after `--`\n")
    assert not (tmp_path / "root").exists()


def test_a_command_begins_where_it_was_typed() -> None:
    """The workspace is the project's, and the guest has the same directories."""
    assert (
        "cd -- 'with space/b'\nmake 'a b'" == job("--", "make", "a b", below="with space/b").command
    )
    for here in ("", "."):
        assert "make" == job("--", "make", below=here).command


def test_a_directory_or_command_that_is_not_utf8_is_refused() -> None:
    """A spec is text."""
    for words, below in ((["x\udcff"], ""), (["x"], "\udcff")):
        with pytest.raises(UsageError, match="is not UTF-8"):
            ad_hoc_job(words, {}, below)
