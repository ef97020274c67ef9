"""Renders templates, with headers that isolate a page."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.responses import Response

from orchestrator.service.web.static_files import version
from orchestrator.terminal import plain, plain_lines
from orchestrator.units import NOW, age, counted, duration, size
from orchestrator.words import STATES, VERDICTS, beyond_key, describe_flake, describe_tests, place

# Even if the output of a job were not escaped, it could not run, load or send anything.
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer`, a browser would send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def ago(secs: float) -> str:
    """An age in words. `times.js` updates it in the same format."""
    return "just now" if (passed := age(secs)) == NOW else f"{passed} ago"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator.service.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=duration,
        size=size,
        counted=counted,
        beyond_key=beyond_key,
        describe_tests=describe_tests,
        describe_flake=describe_flake,
        place_of=lambda job: place(job.host, job.member),
        word=lambda name: VERDICTS.get(name) or STATES.get(name, name),
        plain=plain,
        lines=plain_lines,
        quoted=lambda text: quote(text, safe=""),
        last_name=lambda path: path.rstrip("/").rpartition("/")[2],
        path=lambda text: quote(text, safe="/"),
        json=lambda value: plain_lines(json.dumps(value, ensure_ascii=False, indent=2)),
        iso=lambda at: at.astimezone(UTC).isoformat(timespec="milliseconds"),
        exact=lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        age=lambda at: ago((datetime.now(UTC) - at).total_seconds()),
        passed_since=lambda at: duration((datetime.now(UTC) - at).total_seconds()),
    )
    environment.globals["static"] = f"/static/{version()}"
    environment.globals["now_ms"] = lambda: int(time.time() * 1000)
    return environment


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a page, or a part of one."""
    html = _environment().get_template(template).render(**values)
    return Response(html, status_code=status, media_type="text/html", headers=HEADERS)
