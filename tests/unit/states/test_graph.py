"""Which jobs need which others: the order, and everything that is refused at the door."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from states.graph import broken_references, inputs, needed, resolved, with_needed
from states.mistakes import mistakes
from states.spec import InstanceType, JobSpec, Mount, OutputOf
from tests.samples import sample_shell_job


def job(*needs: str, **changes: object) -> JobSpec:
    return sample_shell_job(needs=needs, **changes)


TREE = job(output="/artifacts/site")
IMAGE = job(output="image")
CLOSING = job(
    output="/artifacts/y",
    mounts=(Mount(OutputOf("a"), "/mnt/a"), Mount(OutputOf("b"), "/mnt/b")),
)


def test_inputs_are_found_wherever_they_stand() -> None:
    """Each with its key; and they are needed like jobs that are named for the order."""
    spec = job(
        "lint",
        image=OutputOf("tools"),
        workspace_deps=OutputOf("deps"),
        workspace_build="/srv/build",
        mounts=(Mount("/srv/data", "/mnt/data"), Mount(OutputOf("deps"), "/venv")),
    )

    assert [
        ("image", "tools"),
        ("workspace_deps", "deps"),
        ("mounts[1].source", "deps"),
    ] == inputs(spec)
    assert ["tools", "deps", "lint"] == needed(spec)


def test_values_take_the_place_of_outputs() -> None:
    """Nothing else changes; what is missing is told as such."""
    spec = job(
        image=OutputOf("tools"),
        nix_store=OutputOf("deps"),
        mounts=(Mount("/srv/data", "/mnt/data"), Mount(OutputOf("deps"), "/venv")),
    )

    made = resolved(spec, {"tools": "f" * 64, "deps": "/outputs/x/tree"})

    assert ("f" * 64, "/outputs/x/tree") == (made.image, made.nix_store)
    assert (Mount("/srv/data", "/mnt/data"), Mount("/outputs/x/tree", "/venv")) == made.mounts
    assert "the output of tools" == resolved(spec, {}).image


@pytest.mark.parametrize(
    ("specs", "key", "words"),
    [
        ({"a": job("lnt"), "lint": job()}, "needs[0]", "'lnt', which does not exist: did you mean"),
        ({"a": job(workspace_deps=OutputOf("b"))}, "workspace_deps", "which does not exist"),
        ({"a": job(nix_store=OutputOf("b")), "b": job()}, "nix_store", "which has no `output`"),
        ({"a": job(nix_store=OutputOf("b")), "b": IMAGE}, "nix_store", "whose output is an image"),
        ({"a": job(image=OutputOf("b")), "b": TREE}, "image", "whose output is a directory"),
        (
            {
                "a": job(image=OutputOf("b"), instance_type=InstanceType.VIRTUAL_MACHINE),
                "b": IMAGE,
            },
            "image",
            "whose image is for a container",
        ),
        ({"a": job("a")}, "needs[0]", "closes a cycle: a -> a"),
        (
            {"a": job("b"), "b": job("c"), "c": job("d", "b"), "d": job()},
            "needs[1]",
            "closes a cycle: b -> c -> b",
        ),
        ({"a": job(image=OutputOf("a"), output="image")}, "image", "closes a cycle: a -> a"),
        (
            {"a": TREE, "b": job(nix_store=OutputOf("c"), output="/artifacts/x"), "c": CLOSING},
            "mounts[1].source",
            "closes a cycle: b -> c -> b",
        ),
    ],
)
def test_what_cannot_be_is_refused(specs: dict[str, JobSpec], key: str, words: str) -> None:
    """With the key, the reason, and what is allowed or near."""
    ((_, wrong),) = broken_references(specs)

    assert key == wrong.key
    assert words in wrong.brief


def test_all_mistakes_come_at_once() -> None:
    """Also cycles beside unknown names."""
    specs = {"a": job("x", "y"), "b": job("b"), "c": job(nix_store=OutputOf("a"))}

    assert ["a", "a", "c", "b"] == [name for name, _ in broken_references(specs)]


def test_a_long_chain_is_no_recursion() -> None:
    """Of as many jobs as a file can have."""
    specs = {str(n): job(*([str(n - 1)] if n else [])) for n in range(5000)}

    assert [] == list(broken_references(specs))
    assert list(specs) == with_needed(specs, ["4999"])


GRAPHS = st.integers(1, 8).flatmap(
    lambda size: st.lists(
        st.sets(st.integers(0, size - 1), max_size=3), min_size=size, max_size=size
    )
)


@given(GRAPHS, st.data())
def test_each_job_comes_after_those_that_it_needs(
    graph: list[set[int]], data: st.DataObject
) -> None:
    """And once; of a graph without cycles. Every other graph is refused, and none hangs."""
    specs = {str(n): job(*map(str, sorted(needs))) for n, needs in enumerate(graph)}
    wrong = list(broken_references(specs))
    if not wrong:
        names = data.draw(st.lists(st.sampled_from(list(specs)), min_size=1))
        order = with_needed(specs, names)

        assert set(names) <= set(order)
        assert len(set(order)) == len(order)
        for place, name in enumerate(order):
            assert set(needed(specs[name])) <= set(order[:place])
    else:
        assert any(_is_in_a_cycle(graph, n) for n in range(len(graph)))


def _is_in_a_cycle(graph: list[set[int]], start: int) -> bool:
    seen: set[int] = set()
    rest = list(graph[start])
    while rest:
        one = rest.pop()
        if one == start:
            return True
        if one not in seen:
            seen.add(one)
            rest += graph[one]
    return False


def test_a_wrong_reference_is_told_as_one() -> None:
    """Not as a wrong image or path."""
    document = {"command": "true", "image": {"jobs": "x"}, "nix_store": {"job": 1}}

    unknown, missing, wrong = mistakes(document, JobSpec)

    assert ("image.jobs", "is an unknown key: did you mean `job`?") == (unknown.key, unknown.brief)
    assert ("image.job", "is missing") == (missing.key, missing.brief)
    assert "nix_store.job" == wrong.key
