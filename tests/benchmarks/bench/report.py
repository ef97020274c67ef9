"""A benchmark's result: as JSON, as Markdown, as a picture, and compared with an earlier one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import msgspec

BASE = "13 commands"  # what ratios are to
WORSE = 1.1  # times as much as before

_BAR, _WIDTH, _NAME = 22, 520, 150  # pixels


class SideResult(msgspec.Struct):
    """Of one side: its rounds, each with the seconds until its moments and of CPU time.

    `failed` says why there are none, `lost` how many jobs ended without a verdict.
    """

    name: str
    leaves_out: str
    rounds: list[dict[str, float]] = []
    jobs_a_minute: dict[int, float] = {}  # by how many run at once
    failed: str = ""
    lost: int = 0

    def median(self, what: str) -> float | None:
        """The median of a moment or of the CPU time, in seconds; None if it is not measured."""
        values = [one[what] for one in self.rounds if what in one]
        return statistics.median(values) if values else None


class Result(msgspec.Struct):
    """One run of the benchmark. `machine` has what figures depend on, by name.

    `start_up` has the CPU time of commands, in seconds, `memory` that of processes, in MiB; the
    first of each is a bare Python's.
    """

    machine: dict[str, str]
    sides: list[SideResult]
    start_up: dict[str, float] = {}
    memory: dict[str, float] = {}

    def side(self, name: str) -> SideResult | None:
        return next((side for side in self.sides if side.name == name), None)

    def ratio(self, side: SideResult, what: str) -> float | None:
        """The median of the ratios to the base, round by round: noise of a round is in both."""
        base = self.side(BASE)
        if base is None:
            return None
        pairs = zip(side.rounds, base.rounds, strict=False)
        ratios = [
            ours[what] / theirs[what] for ours, theirs in pairs if what in ours and what in theirs
        ]
        return statistics.median(ratios) if ratios else None


MEASURED = ("first byte", "verdict", "gone", "CPU")


def markdown(result: Result) -> str:
    """The result as a page."""
    return "\n".join([*_page(result), ""])


def _page(result: Result) -> Iterator[str]:
    yield "# One job, side by side"
    yield ""
    yield "Made by `make bench` on a real Incus; the sides take turns. Times are medians in"
    yield f"milliseconds; in brackets, the median of the ratios to the {BASE} of the same round."
    yield ""
    yield from (f"- {name}: {value}" for name, value in result.machine.items())
    yield ""
    yield f"| side | {' | '.join(MEASURED)} |"
    yield f"|---|{'---|' * len(MEASURED)}"
    for side in result.sides:
        cells = [_cell(result, side, what) for what in MEASURED]
        yield f"| {side.name} | {' | '.join(cells)} |"
    yield ""
    at_once = sorted({number for side in result.sides for number in side.jobs_a_minute})
    yield f"| jobs a minute, with N at once | {' | '.join(map(str, at_once))} |"
    yield f"|---|{'---|' * len(at_once)}"
    for side in result.sides:
        if side.jobs_a_minute:
            rates = [side.jobs_a_minute.get(number) for number in at_once]
            shown = ("-" if rate is None else f"{rate:.0f}" for rate in rates)
            yield f"| {side.name} | {' | '.join(shown)} |"
    yield ""
    yield from _of_processes("CPU time of a command, ms", result.start_up, 1000)
    yield from _of_processes("memory of a process, MiB", result.memory, 1)
    yield "![Time until the verdict, or until the guest is gone](jobs.svg)"
    yield ""
    for side in result.sides:
        if side.failed:
            yield f"- {side.name} did not run: {side.failed}"
        elif side.leaves_out:
            yield f"- {side.name} leaves out: {side.leaves_out}"
        if side.lost:
            yield f"- {side.name} lost the result of {side.lost} jobs: Incus was busy"


def _of_processes(what: str, found: dict[str, float], unit: int) -> Iterator[str]:
    if found:
        yield f"| {what} | |"
        yield "|---|---|"
        yield from (f"| {name} | {unit * value:.0f} |" for name, value in found.items())
        yield ""


def _cell(result: Result, side: SideResult, what: str) -> str:
    median, ratio = side.median(what), result.ratio(side, what)
    if median is None:
        return "-"
    return f"{1000 * median:.0f}" + ("" if ratio is None else f" ({ratio:.2f})")


def svg(result: Result) -> str:
    """Two bars a side: until the verdict, if it is known, and until the guest is gone."""
    longest = max((side.median("gone") or 0.0) for side in result.sides) or 1.0
    height = _BAR * len(result.sides) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_NAME + _WIDTH + 70}" height="{height}"'
        ' font-family="sans-serif" font-size="12">'
    ]
    for number, side in enumerate(result.sides):
        top = 5 + number * _BAR
        lines.append(f'<text x="0" y="{top + 14}">{side.name}</text>')
        for what, colour in (("gone", "#c8d3e0"), ("verdict", "#4a77b4")):
            median = side.median(what)
            if median is not None:
                width = _WIDTH * median / longest
                lines.append(
                    f'<rect x="{_NAME}" y="{top}" width="{width:.0f}" height="{_BAR - 4}"'
                    f' fill="{colour}"><title>{what}: {1000 * median:.0f} ms</title></rect>'
                )
        gone = side.median("gone")
        if gone is not None:
            x = _NAME + _WIDTH * gone / longest + 6
            lines.append(f'<text x="{x:.0f}" y="{top + 14}">{1000 * gone:.0f} ms</text>')
    return "\n".join([*lines, "</svg>", ""])


def worse(old: Result, new: Result) -> list[str]:
    """What got worse from one result to another: a line each.

    Ratios are compared, since two runs never have the same machine.
    """
    found = [
        f"{name}: {was:.1f} -> {is_:.1f} of a bare Python's {what}"
        for what in ("start_up", "memory")
        for name, was, is_ in _pairs(getattr(old, what), getattr(new, what))
        if is_ > WORSE * was
    ]
    for side in new.sides:
        before = old.side(side.name)
        if before is None:
            continue
        if side.failed and not before.failed:
            found.append(f"{side.name}: did not run: {side.failed}")
        for what in MEASURED:
            was, is_ = old.ratio(before, what), new.ratio(side, what)
            if was is not None and is_ is not None and is_ > WORSE * was:
                found.append(f"{side.name}: {what}: {was:.2f} -> {is_:.2f} of the {BASE}")
    return found


def _pairs(old: dict[str, float], new: dict[str, float]) -> Iterator[tuple[str, float, float]]:
    """What both have, as times of the first value of each."""
    for name in new:
        if name in old:
            yield name, old[name] / next(iter(old.values())), new[name] / next(iter(new.values()))
