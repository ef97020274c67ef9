"""What a host's own settings say of indexes and mirrors, and what of it a guest gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.attempt import certificates
from orchestrator.attempt.plan import make_plan
from orchestrator.contract import contract
from orchestrator.job.mirrors import Mirrors, host_mirrors
from states.errors import SpecError
from states.rules import check
from tests.samples import sample_remote_context, sample_shell_job


def read(base: Path, files: dict[str, str], **environment: str) -> Mirrors:
    """The settings of a host with these files below its root, or its `home`."""
    for name, text in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return host_mirrors(environment, home=base / "home", root=base / "root")


def test_a_host_without_settings_has_none(tmp_path: Path) -> None:
    """No file, no variable."""
    assert Mirrors() == read(tmp_path, {})


def test_an_account_without_a_home_has_no_settings_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is below a directory `~` here is the workspace's, and not this user's."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    monkeypatch.chdir(tmp_path)
    npmrc = tmp_path / "~" / ".npmrc"
    npmrc.parent.mkdir()
    npmrc.write_text("registry = https://n.example/npm/\n")

    assert Mirrors() == host_mirrors({}, root=tmp_path)


def test_pip_s_settings_are_handed_on(tmp_path: Path) -> None:
    """The user's win over the machine's, and variables over both; uv gets the same."""
    found = read(
        tmp_path,
        {
            "root/etc/pip.conf": "[global]\nindex-url = https://old.example/simple\ntrusted-host = m.example\n",
            "home/.config/pip/pip.conf": "[global]\nindex-url = https://me:secret@m.example:8443/simple\n"
            "extra-index-url = file:///opt/x\n  http://b.example/simple\n  http://localhost:3141/root\n",
        },
        PIP_TRUSTED_HOST="b.example",
    )
    assert {
        "PIP_INDEX_URL": "https://m.example:8443/simple",
        "PIP_EXTRA_INDEX_URL": "http://b.example/simple",
        "PIP_TRUSTED_HOST": "b.example",
        "UV_DEFAULT_INDEX": "https://m.example:8443/simple",
        "UV_INDEX": "http://b.example/simple",
        "UV_INSECURE_HOST": "b.example",
    } == found.variables
    assert ("b.example:80", "m.example:8443") == found.hosts


def test_npm_go_and_cargo_s_settings_are_handed_on(tmp_path: Path) -> None:
    """Tokens and local paths are not."""
    found = read(
        tmp_path,
        {
            "home/.npmrc": "//n.example/:_authToken=secret\nregistry = https://n.example/npm/\n",
            "home/.config/go/env": "GOPROXY=https://u:p@g.example|file:///mod,direct\nGONOPROXY=x\n",
        },
        CARGO_REGISTRIES_OURS_INDEX="sparse+https://u:p@c.example/index/",
        CARGO_REGISTRIES_OURS_TOKEN="secret",
        CARGO_REGISTRIES_LOUD_INDEX="HTTPS://u:p@l.example/",
        CARGO_REGISTRIES_SHELL_INDEX="ssh://u:p@s.example/index",
        CARGO_REGISTRIES_WRONG_INDEX="https://u:p@[::1/",
        CARGO_HOME="/root/.cargo",
    )
    assert {
        "npm_config_registry": "https://n.example/npm/",
        "GOPROXY": "https://g.example,direct",
        "CARGO_REGISTRIES_OURS_INDEX": "sparse+https://c.example/index/",
        "CARGO_REGISTRIES_LOUD_INDEX": "https://l.example/",
        "CARGO_REGISTRIES_SHELL_INDEX": "ssh://s.example/index",
        "CARGO_REGISTRIES_WRONG_INDEX": "",
    } == found.variables
    assert ("c.example:443", "g.example:443", "l.example:443", "n.example:443") == found.hosts


@pytest.mark.parametrize(
    "text", ["[global\n", "\x00\xff", "index-url = https://x\n", "[global]\na\n"]
)
def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    """Nor does it stop the job."""
    assert {} == read(tmp_path, {"root/etc/pip.conf": text}).variables


def test_apt_s_sources_are_a_file_for_the_guest(tmp_path: Path) -> None:
    """Only jobs with the key read it; the host's certificates are there for all."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    ours = contract().certificates
    directory = tmp_path / "state"
    environment = {"SSL_CERT_FILE": str(bundle)}

    assert str(directory) == certificates.publish(
        directory, environment, ["deb http://a.example x y"]
    )

    files = {path.name: path.read_text() for path in directory.iterdir()}
    assert {ours.bundle, ours.apt, ours.apt_mirrors, ours.sources} == set(files)
    assert "PRIVATE" not in files[ours.bundle]
    assert "SourceList" in files[ours.apt_mirrors]
    assert "SourceList" not in files[ours.apt]
    assert "deb http://a.example x y\n" == files[ours.sources]
    assert {0o644} == {path.stat().st_mode & 0o777 for path in directory.iterdir()}


def test_only_jobs_that_reach_outside_get_any_of_it() -> None:
    """Their own `env` wins."""
    context = sample_remote_context(
        certificates="/state/certificates", mirrors={"GOPROXY": "https://g.example"}, mirror_hosts=("g.example:443",)
    )  # fmt: skip
    plain = make_plan(sample_shell_job(), context)
    assert {"CI", "PIKACI_JOB", "PIKACI_RUN", "PIKACI_COMMIT"} == set(plain.environment)
    assert "pikaci-certificates" not in plain.devices

    named = make_plan(sample_shell_job(egress=("*",), env={"no_proxy": "mine"}), context)
    assert "GOPROXY" not in named.environment
    assert () == named.mirror_hosts
    assert "mine" == named.environment["no_proxy"]
    assert (
        named.environment["HTTPS_PROXY"]
        == named.environment["https_proxy"]
        == contract().egress.url
    )
    assert named.devices["pikaci-certificates"]["readonly"] == "true"

    networked = make_plan(sample_shell_job(network="incusbr0", host_mirrors=True), context)
    assert "https_proxy" not in networked.environment
    assert "https://g.example" == networked.environment["GOPROXY"]
    assert networked.environment["CURL_CA_BUNDLE"].startswith("/mnt/pikaci-certificates/")


def test_mirrors_without_a_way_out_are_refused() -> None:
    """The key would do nothing."""
    with pytest.raises(SpecError, match="host_mirrors"):
        check(sample_shell_job(host_mirrors=True))
    check(sample_shell_job(host_mirrors=True, egress=("a.example",)))
