"""What a job with `egress` reaches, and what it does not, tried from the inside of real guests."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from orchestrator.contract import contract
from orchestrator.image.debian import debian_sources
from states.outcome import Outcome
from states.spec import JobSpec
from tests.integration.egress_servers import HERE, MIB, Web, connections, server
from tests.integration.running import Runs, output_of

pytestmark = pytest.mark.incus


def mirror() -> str:
    """The host that this machine's Debian packages come from, over http."""
    return next(
        host
        for line in debian_sources().lines
        for word in line.split()
        if word.startswith("http://") and (host := urlsplit(word).hostname)
    )


async def test_packages_are_fetched_by_name(runs: Runs) -> None:
    """pip, apt and curl find the proxy and the certificates, and the trace has every host.

    The mount of the host's certificates is not in the way of the package that has the guest's own.
    """
    command = """
echo "$SSL_CERT_FILE $PIP_CERT $NODE_EXTRA_CA_CERTS" | tr ' ' '\\n' | sort -u
touch "$SSL_CERT_FILE" 2>&1 | grep -o 'Read-only' || :
pip download --quiet --no-deps --dest /tmp/wheels --no-binary=:none: idna
ls /tmp/wheels
apt-get update -qq 2>&1 && apt-get download -qq hello && ls hello_*
apt-get install -qq --reinstall ca-certificates >/dev/null 2>&1 && echo installed
"""
    spec = JobSpec(command=f"cd /tmp; {command}", egress=("*",), run_as_root=True)
    job = await runs.run_one(spec)

    printed = output_of(job)
    assert Outcome.PASSED is job.outcome, printed.decode()
    ours = contract().certificates
    lines = printed.decode().splitlines()
    assert [f"{ours.path}/{ours.bundle}", "Read-only"] == lines[:2]
    assert "installed" == lines[-1]
    assert re.search(rb"idna-\S+\.whl", printed)
    assert b"hello_" in printed
    found = connections(runs, job.id)
    assert {80, 443} <= {one.port for one in found}
    assert mirror() in {one.host for one in found}
    assert all(one.received_bytes and one.address for one in found)


async def test_only_what_is_named_is_reached_and_every_attempt_is_noted(runs: Runs) -> None:
    """Other names, other ports, literals, names that lead inside, redirects; by the proxy's words."""
    asked = [
        "http://other.invalid/",
        "https://other.invalid/",
        f"http://{mirror()}:8080/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://127.0.0.1:22/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "https://localhost/",
        "http://0.0.0.0/",
    ]
    lines = [
        f"curl --noproxy '' -gsS -o /dev/null -D- -m 20 {url} 2>&1 | head -1 || :" for url in asked
    ]
    lines.append(f"curl --noproxy '' -sS -o /dev/null -w '%{{http_code}}\\n' http://{mirror()}/")
    spec = JobSpec(command="\n".join(lines), egress=(mirror(), "localhost"))
    job = await runs.run_one(spec)

    answers = output_of(job).decode().splitlines()
    assert len(asked) + 1 == len(answers)
    assert re.fullmatch("[234]..", answers[-1])
    refused = answers[:-1]
    assert all(re.match("HTTP/1.1 40[03] ", answer) for answer in refused), refused
    assert "HTTP/1.1 403 egress to other.invalid:443 is not allowed by jobs.job.egress" in refused
    assert any("localhost:443 is not allowed: " in answer for answer in refused)
    found = connections(runs, job.id)
    assert len(asked) == sum(one.refused for one in found)
    assert [mirror()] == [one.host for one in found if not one.refused]


@pytest.mark.parametrize(("end", "hinted"), [("exit 3", True), ("true", False)])
async def test_a_job_that_failed_after_a_refusal_is_told_of_it(
    runs: Runs, end: str, hinted: bool
) -> None:
    """With the host; a job that passed is not."""
    command = f"curl -sS https://other.invalid || {end}"
    job = await runs.run_one(JobSpec(command=command, egress=("named.invalid",)))

    assert hinted == ("egress to other.invalid:443 was refused" in job.hint)


async def test_a_rule_that_names_an_address_leads_there(runs: Runs) -> None:
    """And a redirect from there leads nowhere else."""
    with server(Web, http=True) as port, server(Web, http=True) as other:
        command = f"""
curl --noproxy '' -sS -o /dev/null -w '%{{http_code}} %{{size_download}}\\n' http://{HERE}:{port}/{MIB}
curl --noproxy '' -sSL -D- http://{HERE}:{port}/to/{HERE}:{other} | grep ^HTTP
curl --noproxy '' -sSL -D- http://{HERE}:{port}/to/other.invalid | grep ^HTTP
"""
        job = await runs.run_one(JobSpec(command=command, egress=(f"{HERE}:{port}",)))
    printed = output_of(job).decode().splitlines()
    assert f"200 {MIB}" == printed[0]
    assert [302, 403, 302, 403] == [int(line.split()[1]) for line in printed[1:]]


async def test_the_host_s_mirrors_are_reached_without_an_entry(runs: Runs) -> None:
    """The same job file works wherever the host's packages come from."""
    command = """
apt-get update 2>&1 | grep -c ^Err || :
apt-get indextargets --format '$(SOURCESENTRY)' | cut -d: -f1 | sort -u
apt-get download -qq hello && ls hello_*
"""
    spec = JobSpec(
        command=f"cd /tmp; {command}",
        egress=("other.invalid",),
        host_mirrors=True,
        run_as_root=True,
    )
    job = await runs.run_one(spec)
    lines = output_of(job).decode().splitlines()
    ours = contract().certificates
    assert ["0", f"{ours.path}/{ours.sources}"] == lines[:2]
    assert lines[-1].startswith("hello_")
