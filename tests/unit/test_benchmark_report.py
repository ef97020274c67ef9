"""The benchmark's result as a page, as a picture, and beside an earlier one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec

from tests.benchmarks.bench.report import BASE, Result, SideResult, markdown, svg, worse


def result(*verdicts: float, **changes: object) -> Result:
    """A result in which the base takes one second, then two, and the other side these."""
    base = SideResult(BASE, "", [{"verdict": 1.0, "gone": 2.0}, {"verdict": 2.0, "gone": 4.0}])
    rounds = [{"verdict": secs, "gone": secs + 1} for secs in verdicts]
    return Result({"Incus": "6"}, [base, SideResult("ours", "logs", rounds, **changes)])  # type: ignore[arg-type]


def test_ratios_are_of_the_same_round() -> None:
    """A slow round is slow for all: it does not count for one side only."""
    (_, ours) = (made := result(0.5, 1.0)).sides

    assert 0.5 == made.ratio(ours, "verdict")
    assert made.ratio(ours, "first byte") is None
    assert "| ours | - | 750 (0.50) |" in markdown(made)
    assert "- ours leaves out: logs" in markdown(made)


def test_a_side_that_did_not_run_says_why() -> None:
    """And one that lost results says how many."""
    page = markdown(result(failed="no such image", lost=3))

    assert "- ours did not run: no such image" in page
    assert "- ours lost the result of 3 jobs" in page


def test_the_picture_has_a_bar_for_each_known_moment() -> None:
    """It is XML, and the longest bar has the whole width."""
    bars = ET.fromstring(svg(result(0.5, 1.0))).findall("{http://www.w3.org/2000/svg}rect")

    assert ["520", "260", "303", "130"] == [bar.get("width") for bar in bars]


def test_what_got_worse_is_named() -> None:
    """By its ratio to the base, and beyond what is noise."""
    assert [] == worse(result(0.5, 1.0), result(0.52, 1.05))
    assert [f"ours: verdict: 0.50 -> 0.60 of the {BASE}"] == worse(
        result(0.5, 1.0), result(0.6, 1.2)
    )
    assert ["ours: did not run: gone"] == worse(result(0.5), result(failed="gone"))


def test_what_only_one_result_has_is_not_compared() -> None:
    """A newer benchmark has more sides, and more jobs at once, than the result in docs has."""
    file = Path(__file__).parents[2] / "docs" / "benchmarks" / "jobs.json"
    old, new = [msgspec.json.decode(file.read_bytes(), type=Result) for _ in range(2)]
    for side in new.sides:
        side.jobs_a_minute = dict.fromkeys((1, 16), 1.0)
    new.sides.append(SideResult("newer", "", [{"verdict": 9.0, "CPU": 9.0}] * 10))

    assert [] == worse(old, new) == worse(new, old)
    slower = msgspec.json.decode(msgspec.json.encode(new), type=Result)
    slower.sides[-1].rounds = [{"verdict": 18.0, "CPU": 9.0}] * 10
    (line,) = worse(new, slower)
    assert line.startswith("newer: verdict: ")


def test_a_side_that_deletes_no_guest_has_one_bar() -> None:
    """With its time beside it; in the table the moment is left out."""
    made = result(0.5, 1.0)
    made.sides.append(SideResult("bare", "", [{"first byte": 0.1, "verdict": 0.2}]))
    texts = [
        text.text for text in ET.fromstring(svg(made)).iter("{http://www.w3.org/2000/svg}text")
    ]

    assert "| bare | 100 | 200 (0.20) | - | - |" in markdown(made)
    assert ["bare", "200 ms"] == texts[-2:]


def test_what_processes_cost_is_compared_with_a_bare_python() -> None:
    """So a slower machine is no worse result; what only one result has is not compared."""
    old, slower, worse_ = result(0.5), result(0.5), result(0.5)
    old.start_up = {"python": 0.01, "pikaci list": 0.08}
    slower.start_up = {"python": 0.02, "pikaci list": 0.16, "pikaci status": 1.0}
    worse_.start_up = {"python": 0.01, "pikaci list": 0.1}

    assert [] == worse(old, slower)
    assert ["pikaci list: 8.0 -> 10.0 of a bare Python's start_up"] == worse(old, worse_)
    assert "| pikaci list | 80 |" in markdown(old)
