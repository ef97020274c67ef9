"""Which member of a cluster gets a job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.hosts.placement import ONLINE, Member, choose, in_target, is_full, why_none

NAMES = ["m1", "m2", "m3"]


def member(name: str, status: str = ONLINE, *groups: str) -> Member:
    return Member(name=name, status=status, groups=("default", *groups))


members = st.lists(
    st.builds(
        member,
        st.sampled_from(NAMES),
        st.sampled_from([ONLINE, "Offline", "Evacuated", "Blocked"]),
        st.sampled_from(["fast", "slow"]),
    ),
    unique_by=lambda one: one.name,
)


@given(
    members,
    st.sampled_from(["", "m1", "@fast", "@default", "gone", "@gone"]),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5)),
    st.none() | st.integers(1, 4),
    st.sets(st.sampled_from(NAMES)),
)
def test_the_one_with_the_fewest_jobs_of_those_that_may(  # type: ignore[no-untyped-def]
    members, target, running, slots, avoid
) -> None:
    """Online, in the target, with a free slot; one to avoid only when there is no other."""
    chosen = choose(members, target, running, slots=slots, avoid=avoid)

    may = [
        one.name
        for one in members
        if one.status == ONLINE
        and in_target(one, target)
        and (slots is None or running.get(one.name, 0) < slots)
    ]
    if not may:
        assert "" == chosen
        assert is_full(members, target) or why_none(members, target)
        return
    assert chosen in may
    best = [name for name in may if name not in avoid] or may
    assert chosen in best
    assert running.get(chosen, 0) == min(running.get(name, 0) for name in best)


def test_it_says_which_members_are_away() -> None:
    """In one line, also of a big cluster; and when the target names none."""
    away = [member(f"m{n}", "Offline") for n in range(9)]

    assert "m0 is offline, m1 is offline" in why_none(away, "")
    assert why_none(away, "").endswith("and 4 more")
    assert "no member of the cluster is @fast" == why_none(away, "@fast")
