"""HTML: the run as bars over time. One file, no script, no network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape as escape_markup
from importlib.resources import files

from orchestrator.terminal import plain_lines
from orchestrator.tracing.parts import Share, afterwards, parts, summed
from orchestrator.tracing.path import Link, path_of_run
from orchestrator.tracing.timeline import Kind, Span, Timeline
from orchestrator.units import duration
from orchestrator.words import job_word, output_lines
from states.events import WaitFor

# No scripts: nothing that a job printed can run as one.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# With more jobs than this, each gets one line, and beside it its own time, enlarged.
MANY = 40
_TICKS = 6
_LAST_TICK = 97.0  # percent; labels further right would leave the page
_FAR = 60.0  # percent; a hint further right opens to the left
_LETTER = 0.008  # width of a letter, as a share of the page's width
_SMALL = 0.0005  # share of the page's width; shorter spans get no bar

WORDS = {
    "wait": "waits",
    "host": "pikaci itself",
    "create": "create",
    "start": "start",
    "ready": "until it is ready",
    "run": "the command",
    "collect": "collect",
    "cancel": "cancel",
    "delete": "delete, after the verdict",
    "other": "other commands",
}


def escape(text: str) -> str:
    """Escape markup, and remove characters that reorder the text around them."""
    return escape_markup(plain_lines(text))


def html(jobs: Sequence[Timeline]) -> bytes:
    """The page; hover over a bar for details."""
    clock = _Clock(min(job.begin for job in jobs), max(job.end for job in jobs))
    many = len(jobs) > MANY
    runs = ", ".join(dict.fromkeys(job.run for job in jobs))
    links = path_of_run(jobs)
    on_path = {link.id for link in links} if len(jobs) > 1 else set()
    style = (files("orchestrator") / "tracing" / "page.css").read_text()
    longest = max(_own(job).secs for job in jobs)
    rows = (
        _dense(job, clock, on_path, longest) if many else _job(job, clock, on_path) for job in jobs
    )
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>pikaci run {escape(runs)}</title><style>{style}</style></head>",
            f'<body class="{"many" if many else "few"}" style="--step:{clock.step_percent:.4f}%">',
            *_head(jobs, runs, clock),
            *_critical(links, clock, of_jobs=len(jobs)),
            *_together(jobs),
            *_scale(clock, many=many),
            *rows,
            "</body></html>\n",
        )
    ).encode()


class _Clock:
    """Maps time to the page's width."""

    def __init__(self, zero: datetime, end: datetime) -> None:
        self.zero = zero
        self.secs = max((end - zero).total_seconds(), 0.001)
        rough = self.secs / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        self.step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)

    @property
    def step_percent(self) -> float:
        return self.step / self.secs * 100

    def bar(self, span: Span, kind: str, hint: str, label: str = "") -> str:
        left = (span.begin - self.zero).total_seconds() / self.secs * 100
        far = " far" if left > _FAR else ""
        fault = "" if span.ok else " fault"
        text = f"<b>{escape(label)}</b>" if label else ""
        return (
            f'<div class="bar {kind}{fault}{far}" style="left:{left:.3f}%;'
            f'width:{span.secs / self.secs * 100:.3f}%" data-t="{escape(hint)}">{text}</div>'
        )


def _head(jobs: Sequence[Timeline], runs: str, clock: _Clock) -> Iterator[str]:
    counts = Counter((_class(job), job_word(job.job)) for job in jobs)
    yield f'<div class="head"><h1>{"Run" if len(jobs) > 1 else "Job of run"} {escape(runs)}</h1>'
    for (verdict, word), count in counts.most_common():
        yield f'<span class="{verdict}">{count} {escape(word)}</span>'
    moment = f"{clock.zero:%Y-%m-%d %H:%M:%S} UTC, {duration(clock.secs)}"
    yield f'<span class="soft num">{moment}</span></div>'


def _critical(links: Sequence[Link], clock: _Clock, *, of_jobs: int) -> Iterator[str]:
    if of_jobs == 1:
        return
    steps = []
    for link in links:
        if link.waited > _SMALL * clock.secs:
            steps.append(f"a slot ({duration(link.waited)})")
        steps.append(f"<b>{escape(link.name)}</b> ({duration(link.secs)})")
    if len(steps) > 12:
        steps = [*steps[:4], f"{len(steps) - 8} more", *steps[-4:]]
    yield '<p class="path">Critical path (blue edge): '
    yield f"{' → '.join(steps)}</p>"


def _together(jobs: Sequence[Timeline]) -> Iterator[str]:
    """All jobs' time as one bar, which is also the legend."""
    spans = [part for job in jobs for state in job.states for part in parts(job, state)]
    spans += [call for job in jobs for call in afterwards(job)]
    shares: dict[str, float] = {}
    for share in summed(spans):
        kind = kind_of(share)
        shares[kind] = shares.get(kind, 0.0) + share.secs
    whole = max(sum(shares.values()), 0.001)
    found = [(kind, shares[kind]) for kind in WORDS if shares.get(kind)]
    yield '<div class="whole">'
    for kind, secs in found:
        yield f'<i class="{kind}" style="flex-grow:{secs / whole * 1000:.0f}"></i>'
    yield '</div><ul class="legend">'
    for kind, secs in found:
        told = f"{WORDS[kind]} <span class='soft num'>{100 * secs / whole:.0f} %</span>"
        yield f'<li><i class="{kind}"></i>{told}</li>'
    yield "</ul>"


def _scale(clock: _Clock, *, many: bool) -> Iterator[str]:
    yield '<div class="scale"><div></div><div class="ticks num">'
    for number in range(int(clock.secs / clock.step) + 1):
        left = number * clock.step_percent
        if left < _LAST_TICK:
            label = duration(number * clock.step) if number else "0"
            yield f'<span style="left:{left:.3f}%">{label}</span>'
    own = "<div>the same without the wait, enlarged</div>" if many else ""
    yield f"</div>{own}</div>"


def _job(job: Timeline, clock: _Clock, on_path: set[str]) -> str:
    states = "".join(
        clock.bar(
            state,
            "state",
            _hint(job, state),
            state.name if state.secs / clock.secs > _LETTER * len(state.name) else "",
        )
        for state in job.states
        if state.secs
    )
    inner = [part for state in job.states for part in parts(job, state)]
    bars = "".join(
        clock.bar(part, kind_of(part), _hint(job, part))
        for part in (*inner, *afterwards(job))
        if part.secs / clock.secs > _SMALL
    )
    return (
        f'<section class="job{" on" if job.id in on_path else ""}">{_name(job)}'
        f'<div><div class="row">{states}</div><div class="row">{bars}</div></div>'
        f"{_failure(job)}</section>"
    )


def _dense(job: Timeline, clock: _Clock, on_path: set[str], longest: float) -> str:
    own = _own(job)
    bars = ""
    if job.held_up is not None:
        bars += clock.bar(job.held_up, "wait", _hint(job, job.held_up))
    bars += clock.bar(own, f"block {_class(job)}", _hint(job, own))
    near = _Clock(own.begin, own.end)
    near.secs = max(longest, 0.001)
    inner = "".join(
        near.bar(part, kind_of(part), _hint(job, part))
        for state in job.states
        for part in parts(job, state)
        if part.begin >= own.begin and part.secs / near.secs > 10 * _SMALL
    )
    return (
        f'<section class="job{" on" if job.id in on_path else ""}">{_name(job)}'
        f'<div class="row">{bars}</div><div class="row">{inner}</div>{_failure(job)}</section>'
    )


def _own(job: Timeline) -> Span:
    """From when the job got its slot to its verdict."""
    begin = job.held_up.end if job.held_up is not None else job.begin
    return Span(
        name=job.name, kind=Kind.STATE, begin=min(begin, job.settled), end=job.settled, attempt=1
    )


def _name(job: Timeline) -> str:
    secs = (job.settled - job.begin).total_seconds()
    word = f'<span class="{_class(job)}">{escape(job_word(job.job))}</span>'
    return (
        f'<div class="name">{escape(job.name)} {word}'
        f' <small class="num">{escape(job.id)}, {duration(secs)}</small>{_outputs(job)}</div>'
    )


def _outputs(job: Timeline) -> str:
    told = output_lines(job.job, job.missing)
    return f' <small class="soft">{escape("; ".join(told))}</small>' if told else ""


def _failure(job: Timeline) -> str:
    if job.failure is None:
        return ""
    first, _, rest = job.failure.message.partition("\n")
    more = "\n".join(part for part in (rest, job.failure.resolution) if part)
    code = f" <small>exit code {job.job.exit_code}</small>" if job.job.reason else ""
    if not more:
        return f'<div class="why">{escape(first)}{code}</div>'
    opened = f"<summary>{escape(first)}{code}</summary><pre>{escape(more)}</pre>"
    return f'<details class="why">{opened}</details>'


def _hint(job: Timeline, span: Span) -> str:
    head = f"{span.name}: {duration(span.secs)}"
    begin = f"from {duration((span.begin - job.begin).total_seconds())}"
    attempt = f"attempt {span.attempt}" if job.job.attempt > 1 else ""
    after = "freed the slot" if span.name == WaitFor.PLACE else "ended"
    made_way = f"{span.after} {after}" if span.after else ""
    first = ", ".join(part for part in (head, begin, attempt, made_way) if part)
    told = [text[:300] for text in (span.detail, span.error) if text]
    return "\n".join((first, *told))


def kind_of(part: Span | Share) -> str:
    """The CSS class of a part of a state; `WORDS` has its label."""
    if part.kind in (Kind.WAIT, Kind.HOST):
        return part.kind.value
    return part.name if part.name in WORDS else "other"


def _class(job: Timeline) -> str:
    return job.verdict.value if job.verdict else "none"
