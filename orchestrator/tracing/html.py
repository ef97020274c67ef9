"""A page to look at: the run as bars over time. One file, no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from orchestrator.tracing.timeline import Span, Timeline

# Without a script nothing that a job printed can become one.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --fault: #c0392b; }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.2rem; margin: 0 0 .25rem; }
p { color: var(--soft); margin: 0 0 1.5rem; }
.job { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: .25rem 1rem;
  align-items: center; padding: .5rem 0; border-top: 1px solid var(--line); }
.name { overflow-wrap: anywhere; } .name small { color: var(--soft); display: block; }
.row { position: relative; height: 1.25rem; } .calls { height: .5rem; }
.bar { position: absolute; top: 0; bottom: 0; min-width: 2px; border-radius: 2px; overflow: hidden;
  white-space: nowrap; font-size: 11px; padding: 0 .3em; box-sizing: border-box; color: #111; }
.bar:hover { outline: 2px solid currentColor; z-index: 1; }
.submitted { background: #bbb; } .artifacts_reset { background: #d7bde2; }
.devices_configured { background: #aed6f1; } .instance_ready { background: #a3e4d7; }
.running { background: #7dcea0; } .result_collected, .cancelled, .rejected { background: #888; }
.cancelling { background: #f8c471; } .call { background: var(--soft); padding: 0; }
.failed, .fault { background: var(--fault); color: #fff; }
.verdict { font-weight: 600; } .bad { color: var(--fault); }
pre { grid-column: 1 / -1; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.scale { position: relative; height: 1.2rem; color: var(--soft); font-size: 11px; }
.scale span { position: absolute; transform: translateX(-50%); }
@media (max-width: 40rem) { .job { grid-template-columns: 1fr; } }
"""
_TICKS = 5


def html(jobs: Sequence[Timeline]) -> bytes:
    """The page; hover over a bar to read what it is."""
    zero, end = min(job.begin for job in jobs), max(job.end for job in jobs)
    whole = max((end - zero).total_seconds(), 0.001)

    def bar(span: Span, kind: str, label: str) -> str:
        left = (span.begin - zero).total_seconds() / whole * 100
        width = span.secs / whole * 100
        title = f"{span.name}, {span.secs:.3f} s, attempt {span.attempt}\n{span.detail}".strip()
        fault = "" if span.ok else " fault"
        return (
            f'<div class="bar {kind}{fault}" style="left:{left:.4f}%;width:{width:.4f}%"'
            f' title="{escape(title)}">{escape(label)}</div>'
        )

    rows = []
    for job in jobs:
        states = "".join(
            bar(span, span.name, span.name if span.secs / whole > 0.1 else "")
            for span in job.states
        )
        calls = "".join(bar(span, "call", "") for span in job.calls)
        verdict = job.verdict.value.replace("_", " ") if job.verdict else job.states[-1].name
        bad = "" if job.verdict in (None, "passed") else " bad"
        failure = f"<pre>{escape(job.failure.message)}</pre>" if job.failure else ""
        rows.append(
            f'<section class="job"><div class="name">{escape(job.name)}'
            f' <span class="verdict{bad}">{escape(verdict)}</span>'
            f"<small>{escape(job.id)}, {(job.end - job.begin).total_seconds():.2f} s</small></div>"
            f'<div><div class="row">{states}</div><div class="row calls">{calls}</div></div>'
            f"{failure}</section>"
        )
    ticks = "".join(
        f'<span style="left:{100 * n / _TICKS:.1f}%">{whole * n / _TICKS:.2f} s</span>'
        for n in range(_TICKS + 1)
    )
    runs = ", ".join(dict.fromkeys(job.run for job in jobs))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>pikaci run {escape(runs)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>run {escape(runs)}</h1>"
        f"<p>{zero:%Y-%m-%d %H:%M:%S} UTC, {len(jobs)} jobs, {whole:.2f} s."
        " The wide bars are states, the narrow ones incus commands.</p>"
        f'<section class="job"><div></div><div class="scale">{ticks}</div></section>'
        f"{''.join(rows)}</body></html>\n"
    ).encode()
