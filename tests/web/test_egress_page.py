"""What a job reached outside, on its page."""

from __future__ import annotations

import msgspec

from orchestrator import JobSpec
from states import events as ev
from tests.samples import BEGAN, sample_life
from tests.service.served import open_served
from tests.web.test_html import EVIL, HTML, check_harmless


async def test_a_page_lists_what_a_job_reached() -> None:
    """By host, with what was refused and why; the names, which a guest chose, are text."""
    first, *rest = sample_life()
    first = msgspec.structs.replace(first, spec=JobSpec(command="x", egress=("a.example",)))

    def connected(**keys: object) -> ev.Connected:
        return ev.Connected(job="r.1", at=BEGAN, monotonic=1.0, port=443, **keys)  # type: ignore[arg-type]

    entries = [
        connected(host="a.example", address="192.0.2.1", sent_bytes=10, received_bytes=2048),
        connected(host="b.example", refused=True, reason="not in egress"),
        connected(host=EVIL, refused=True, reason=EVIL),
        *(connected(host=f"c{number}.example", refused=True) for number in range(60)),
    ]
    async with open_served() as served:
        await served.orchestrator.journal.append(first, *rest[:4], *entries, *rest[4:])
        page = " ".join((await served.http.get("/jobs/r.1", headers=HTML)).text.split())

    check_harmless(page)
    assert '<a href="#egress">Egress</a>' in page
    assert '63 connections, <span class="word failed">62 refused</span>' in page
    row = '<td><bdi>a.example:443</bdi><td class="num">1<td class="num">2 KiB<td class="num">10 B'
    assert row in page
    assert "1: <bdi>not in egress</bdi>" in page
    assert 51 == page.split('id="egress"')[1].split("</table>")[0].count("</tr>")
    assert "and 13 more hosts" in page
