"""The drawing of a job among the jobs around it."""

from __future__ import annotations

from orchestrator.service.web.graph import MOST, graph
from tests.samples import sample_life
from tests.web.rows import summary_of


def test_a_job_is_drawn_between_what_it_needs_and_what_needs_it() -> None:
    """A line for each need; in words too."""
    jobs = {
        name: summary_of(sample_life(), id=f"r.{name}", name=name)
        for name in ("deps", "build", "test", "lint")
    }
    ids = {job.id: job for job in jobs.values()}
    needs = {"r.build": {"deps": "r.deps"}, "r.test": {"build": "r.build", "gone": "r.gone"}}

    drawn = graph(jobs["build"], needs, ids)
    assert drawn is not None
    assert ["deps", "build", "test"] == [node.name for node in drawn.nodes]
    assert [0, 260, 520] == [node.x for node in drawn.nodes]
    assert 2 == len(drawn.edges)
    assert "build needs deps and is needed by test" == drawn.words
    first = graph(jobs["deps"], needs, ids)
    assert first is not None
    assert ["deps", "build"] == [node.name for node in first.nodes]
    assert graph(jobs["lint"], needs, ids) is None


def test_a_drawing_stays_small() -> None:
    """However many jobs there are, and however long their names."""
    jobs = {f"r.{n}": summary_of(sample_life(), id=f"r.{n}", name="n" * 100) for n in range(1000)}
    needs = {f"r.{n}": {"x": "r.0"} for n in range(1, 1000)}
    drawn = graph(jobs["r.0"], needs, jobs)

    assert drawn is not None
    assert MOST + 2 == len(drawn.nodes)
    assert "and 993 more" == drawn.nodes[-1].name
    assert drawn.height <= 300
    assert all(0 <= node.y <= drawn.height - 30 and len(node.name) < 30 for node in drawn.nodes)
