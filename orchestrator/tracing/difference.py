"""Two jobs side by side: another path, another outcome, states that took longer."""

from __future__ import annotations

from collections import defaultdict

from orchestrator.tracing.timeline import Timeline

# Below this, a difference is the machine's noise.
NOTABLE_SECS = 0.1
NOTABLE_RATIO = 1.2


def difference(one: Timeline, other: Timeline) -> list[str]:
    """What is different, a line each; no lines when nothing notable is."""
    lines = []
    if one.verdict != other.verdict:
        lines.append(f"outcome: {_verdict(one)}, then {_verdict(other)}")
    paths = [[span.name for span in job.states] for job in (one, other)]
    if paths[0] != paths[1]:
        common = next(
            (n for n, (a, b) in enumerate(zip(*paths, strict=False)) if a != b),
            min(map(len, paths)),
        )
        ways = [" -> ".join(path[common:]) or "nothing more" for path in paths]
        after = f"after {paths[0][common - 1]}" if common else "from the first"
        lines.append(f"path, {after}: {ways[0]}; then {ways[1]}")
    before, after_ = _times(one), _times(other)
    for name in dict.fromkeys((*before, *after_)):
        a, b = before[name], after_[name]
        if abs(b - a) >= NOTABLE_SECS and max(a, b) >= NOTABLE_RATIO * min(a, b):
            word = "longer" if b > a else "shorter"
            lines.append(f"{name}: {a:.3f} s, then {b:.3f} s ({abs(b - a):.3f} s {word})")
    return lines


def _verdict(job: Timeline) -> str:
    return job.verdict.value if job.verdict else f"not ended ({job.states[-1].name})"


def _times(job: Timeline) -> defaultdict[str, float]:
    """Seconds in each state, and in each kind of incus call, over all attempts."""
    times: defaultdict[str, float] = defaultdict(float)
    for span in (*job.states, *job.calls):
        times[span.name] += span.secs
    return times
