"""What a job needs that reaches the outside: variables for its proxy, and for certificates. Pure.

Only jobs with `egress` or a network get any of it. The job's own `env` overrides all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.contract import contract
from states.spec import JobSpec

_PROXIED = ("http_proxy", "https_proxy", "all_proxy")
_DIRECT = "localhost,127.0.0.1,::1"
# Each names the file with the authorities to trust, to programs that do not read the first one.
_BUNDLE = (
    "SSL_CERT_FILE",
    "NIX_SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
)


def reaches_outside(spec: JobSpec) -> bool:
    """Whether the job may reach other machines."""
    return bool(spec.egress) or spec.network != "none"


def outside_variables(
    spec: JobSpec, guest: str, *, certificates: bool, mirrors: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a job in the guest of this name.

    `certificates`: the host's are mounted there. `mirrors` are those for a job with `host_mirrors`.
    """
    variables: dict[str, str] = {}
    if spec.egress:
        proxy = dict.fromkeys(_PROXIED, contract().egress.url) | {"no_proxy": f"{_DIRECT},{guest}"}
        variables |= proxy | {name.upper(): value for name, value in proxy.items()}
    if certificates and reaches_outside(spec):
        ours = contract().certificates
        variables |= dict.fromkeys(_BUNDLE, f"{ours.path}/{ours.bundle}")
        # apt reads no variable for certificates, but one for a file of settings.
        apt = ours.apt_mirrors if spec.host_mirrors else ours.apt
        variables["APT_CONFIG"] = f"{ours.path}/{apt}"
    if spec.host_mirrors:
        variables |= mirrors
    return variables
