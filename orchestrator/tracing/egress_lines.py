"""What a job reached outside, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from orchestrator.terminal import plain
from orchestrator.tracing.egress import Egress, Host
from orchestrator.units import counted, duration, size

HOSTS = 20
WIDTH = 40


def egress_lines(found: Egress) -> Iterator[str]:
    """The sums, a line for each host, and the shortest `egress` to paste."""
    if not found.hosts:
        yield "egress: no connections; egress = [] is enough"
    else:
        refused = f"; {found.refused} refused" if found.refused else ""
        yield (
            f"egress: {counted(found.connections, 'connection')},"
            f" {size(found.received_bytes)} in, {size(found.sent_bytes)} out{refused}"
        )
        for host in found.hosts[:HOSTS]:
            yield f"  {_host(host)}"
        if (more := len(found.hosts) - HOSTS) > 0:
            yield f"  ... and {counted(more, 'host')} more: --json shows them"
        yield from _to_paste(found)
    if proxies := {host.proxy for host in found.hosts if host.proxy}:
        yield f"  through the host's own proxy {plain(', '.join(sorted(proxies)))}: by name only"
    for gap in found.gaps:
        secs = "an unknown time" if gap.secs is None else duration(gap.secs)
        yield f"  no egress for {secs}: {gap.cut} connections cut, {gap.late} timed out"


def _to_paste(found: Egress) -> Iterator[str]:
    if found.partial:
        yield "  there were too many hosts to find the shortest list"
        return
    yield f"  the shortest list that is enough: egress = {_toml(found.shortest)}"
    if found.with_refused != found.shortest:
        yield f"  with what was refused: egress = {_toml(found.with_refused)}"


def _host(host: Host) -> str:
    name = plain(host.name) or "(no request)"
    if host.refused:
        why = "" if host.refused == host.connections else f" of {host.connections}"
        return f"{name:{WIDTH}}  refused {host.refused}{why}: {plain(host.reason)}"
    line = (
        f"{name:{WIDTH}}  {host.connections:5}  {size(host.received_bytes):>10} in"
        f"  {size(host.sent_bytes):>10} out  {duration(host.secs)}"
    )
    return f"{line}; {plain(host.reason)}" if host.reason else line


def _toml(entries: Sequence[str]) -> str:
    return msgspec.json.encode(list(entries)).decode().replace('","', '", "')
