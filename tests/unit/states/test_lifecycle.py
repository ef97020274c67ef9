"""The table: what the docs say, that each row is needed, and that no name is a typo."""

from __future__ import annotations

import pytest

from states import events as ev
from states.errors import IllegalEvent
from states.lifecycle import TABLE, TERMINAL, State, build_machine, destination, machine

# By hand, from the words of docs/states.md: independent of the table.
EXPECTED = {
    ("new", "submitted"): "submitted",
    ("new", "rejected"): "rejected",
    ("submitted", "artifacts_reset"): "artifacts_reset",
    ("artifacts_reset", "devices_configured"): "devices_configured",
    ("devices_configured", "instance_ready"): "instance_ready",
    ("instance_ready", "running"): "running",
    ("running", "result_collected"): "result_collected",
    # The output of a job that passed comes between.
    ("running", "publishing"): "publishing",
    ("publishing", "result_collected"): "result_collected",
    ("publishing", "failed"): "failed",
    ("publishing", "cancel_requested"): "cancelling",
    # Nothing is run when the output is there, or when a needed job did not pass.
    ("submitted", "reused"): "reused",
    ("submitted", "skipped"): "skipped",
    # Another attempt begins anew, and only while the command has not started.
    ("artifacts_reset", "retried"): "submitted",
    ("devices_configured", "retried"): "submitted",
    ("instance_ready", "retried"): "submitted",
    # The process that made the instance died; what it had begun is not gone on with.
    ("artifacts_reset", "restarted"): "submitted",
    ("devices_configured", "restarted"): "submitted",
    # The member of the cluster that has the guest is away: nothing of the attempt counts any more.
    ("artifacts_reset", "lost"): "submitted",
    ("devices_configured", "lost"): "submitted",
    ("instance_ready", "lost"): "submitted",
    ("running", "lost"): "submitted",
    ("publishing", "lost"): "submitted",
    # Whatever has not ended can fail, or be cancelled.
    ("submitted", "failed"): "failed",
    ("artifacts_reset", "failed"): "failed",
    ("devices_configured", "failed"): "failed",
    ("instance_ready", "failed"): "failed",
    ("running", "failed"): "failed",
    ("submitted", "cancel_requested"): "cancelling",
    ("artifacts_reset", "cancel_requested"): "cancelling",
    ("devices_configured", "cancel_requested"): "cancelling",
    ("instance_ready", "cancel_requested"): "cancelling",
    ("running", "cancel_requested"): "cancelling",
    ("cancelling", "cancelled"): "cancelled",
}


def moves(machine) -> dict[tuple[str, str], str]:  # type: ignore[no-untyped-def]
    """Everything that a machine allows."""
    return {
        (State[source].value, trigger): State[transition.dest].value
        for trigger, event in machine.events.items()
        for source, transitions in event.transitions.items()
        for transition in transitions
    }


def test_the_table_allows_what_the_docs_say_and_nothing_else() -> None:
    """Every pair of state and event, legal or not."""
    assert EXPECTED == moves(machine())


def single_rows() -> list[tuple[str, State, State]]:
    return [(trigger, source, dest) for trigger, sources, dest in TABLE for source in sources]


@pytest.mark.parametrize("row", single_rows(), ids=lambda row: f"{row[0]}-{row[1]}")
def test_every_row_is_needed(row: tuple[str, State, State]) -> None:
    """Take a row away, bend its end, or add a beginning: the words of the docs break."""
    trigger, source, dest = row
    others = [(t, (s,), d) for t, s, d in single_rows() if (t, s) != (trigger, source)]
    elsewhere = State.NEW if dest is not State.NEW else State.FAILED
    added = next(s for s in State if (s.value, trigger) not in EXPECTED)

    assert EXPECTED != moves(build_machine(others))
    assert EXPECTED != moves(build_machine([*others, (trigger, (source,), elsewhere)]))
    assert EXPECTED != moves(build_machine([*others, (trigger, (source, added), dest)]))


def test_names_are_those_of_the_types() -> None:
    """transitions takes any word: each trigger is an event's tag, each event a trigger."""
    assert {ev.tag(kind) for kind in ev.EVENT_TYPES} == {trigger for trigger, _, _ in TABLE}
    assert set(machine().events) == {trigger for trigger, _, _ in TABLE}
    assert {state.name for state in State} == set(machine().states)


def test_nothing_leaves_a_terminal_state() -> None:
    """And every other state can be left."""
    left = {source for source, _ in EXPECTED}

    assert {state.value for state in State} - left == {state.value for state in TERMINAL}


def test_an_illegal_event_names_state_and_event() -> None:
    """A person who reads the error knows what met what."""
    with pytest.raises(IllegalEvent, match="running cannot take the event artifacts_reset"):
        destination(State.RUNNING, ev.ArtifactsReset)


def test_the_card_s_states_keep_their_order() -> None:
    """The five states of the card, in their order, with nothing between them."""
    card = [
        "artifacts_reset",
        "devices_configured",
        "instance_ready",
        "running",
        "result_collected",
    ]
    state, path = State.SUBMITTED, []
    for kind in (
        ev.ArtifactsReset,
        ev.DevicesConfigured,
        ev.InstanceReady,
        ev.Running,
        ev.ResultCollected,
    ):
        state = destination(state, kind)
        path.append(state.value)

    assert card == path
