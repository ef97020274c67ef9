"""Stored entries: read whatever version wrote them, and whatever the rules are today."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from states import events as ev
from states import guest_paths, recorded, spec, trace, upcast
from states.errors import EntryError, NewerEntry, SpecError
from states.job import fold
from tests.samples import lives, sample_event, sample_life, sample_note, sample_shell_job, specs

UNKNOWN: dict[str, Any] = {"tags": ["new"], "deep": {"er": None}}


def stored(entry: ev.Entry, **changes: Any) -> bytes:
    """An entry as JSON, with some of its keys changed, or more of them."""
    return msgspec.json.encode({**msgspec.json.decode(recorded.encode(entry)), **changes})


@given(lives())
def test_what_this_pikaci_wrote_is_read_as_it_was(life: list[ev.Entry]) -> None:
    """Events of every type."""
    assert life == [recorded.decode(recorded.encode(event)) for event in life]


@pytest.mark.parametrize("kind", ev.WrittenNote.__args__)
def test_notes_are_read_as_they_were(kind: type[ev.Note]) -> None:
    """Notes of every type."""
    note = sample_note(kind)

    assert note == recorded.decode(recorded.encode(note))


@given(specs())
def test_no_rule_is_asked_when_history_is_read(kept: spec.JobSpec) -> None:
    """Every spec that could once be submitted is read, however it would be judged today."""
    event = sample_event(ev.Submitted, 1, spec=kept)

    assert event == recorded.decode(recorded.encode(event))


BEYOND: dict[str, Any] = {
    "command": "",
    "timeout_secs": 10**9,
    "cpus": 0,
    "memory": "a lot",
    "image": "remote:image",
    "network": "a b",
    "env": {"A-B": "\0"},
    "secrets": {"PIKACI_X": {"env": "a b", "file": ""}},
    "workspace_deps": "",
    "mounts": [{"source": "", "path": "../x", "mode": "new"}],
    "retries": 99,
    "priority": 1000,
    "deadlines": {"reset_secs": 0, "prepare_secs": 5},
    "gpus": ["first"],
}


@pytest.mark.parametrize("key", BEYOND)
@pytest.mark.parametrize("kind", [ev.Submitted, ev.Rejected])
def test_a_value_beyond_today_s_limits_is_read(key: str, kind: type[ev.Event]) -> None:
    """A range or a pattern that was another, or a key that a newer pikaci wrote."""
    body = stored(sample_event(kind, 1), spec={"command": "true", key: BEYOND[key]})

    event = recorded.decode(body)

    assert isinstance(event, kind)
    assert fold([event]).spec is not None
    expected = getattr(msgspec.convert({"command": "true"}, spec.JobSpec), key, None)
    if key == "gpus":
        assert not hasattr(event.spec, key)  # type: ignore[attr-defined]
    elif key != "deadlines":
        assert expected != getattr(event.spec, key)  # type: ignore[attr-defined]


def test_what_was_beyond_the_limits_is_all_there() -> None:
    """With the types that a spec has."""
    event = recorded.decode(stored(sample_event(ev.Submitted, 1), spec=BEYOND))

    assert isinstance(event, ev.Submitted)
    found = event.spec
    assert ("", 10**9, 0, "a lot") == (found.command, found.timeout_secs, found.cpus, found.memory)
    assert (spec.Mount("", "../x"),) == found.mounts
    assert {"PIKACI_X": spec.SecretSource("a b", "")} == found.secrets
    assert spec.Deadlines(reset_secs=0) == found.deadlines


@pytest.mark.parametrize("kind", ev.EVENT_TYPES)
def test_keys_of_a_newer_pikaci_do_no_harm(kind: type[ev.Event]) -> None:
    """Beside those that are known, in any event."""
    event = sample_event(kind, 1)

    assert event == recorded.decode(stored(event, **UNKNOWN))


def test_keys_of_a_newer_pikaci_are_in_a_trace_as_they_were() -> None:
    """What is exported is what is stored: nothing is lost on the way."""
    life = sample_life()
    bodies = [stored(event, **UNKNOWN) for event in life]
    bodies.insert(2, stored(sample_note(), type="felt", **UNKNOWN))

    data = trace.join("r.1", bodies)

    assert bodies == data.splitlines()[1:]
    assert fold(life) == trace.replay(data)
    assert bodies[2] == recorded.encode(trace.decode(data)[2])


@pytest.mark.parametrize(
    "changes", [{"type": "felt"}, {"v": 3}, {"argv": "incus"}], ids=["type", "version", "meaning"]
)
def test_a_note_that_only_a_newer_pikaci_reads_is_kept(changes: dict[str, Any]) -> None:
    """It moves nothing, so the job is as readable as it was."""
    body = stored(sample_note(), **changes)

    note = recorded.decode(body)

    assert isinstance(note, ev.UnknownNote)
    assert (body, changes.get("type", "called")) == (recorded.encode(note), ev.kind_of(note))


@pytest.mark.parametrize("changes", [{"type": "paused"}, {"v": 2}], ids=["type", "version"])
def test_an_event_of_a_newer_pikaci_is_said_to_be_so(changes: dict[str, Any]) -> None:
    """What it does to the job is not known here."""
    with pytest.raises(NewerEntry, match="a newer pikaci wrote the event") as caught:
        recorded.decode(stored(sample_event(ev.Running, 5), **changes))

    assert "use that pikaci" in caught.value.resolution


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff", b"[]", b"[" * 10_000, b"null", b'{"type":1}',
        stored(sample_event(ev.Running, 5), at="noon"),
        stored(sample_event(ev.Submitted, 1), spec=5),
        stored(sample_event(ev.Submitted, 1), spec={}),
        stored(sample_event(ev.Submitted, 1), spec={"command": ["a"], "new": 1}),
        stored(sample_event(ev.Submitted, 1), spec={"command": "a", "mounts": 5, "new": 1}),
        stored(sample_event(ev.Failed, 1), failure={"kind": "weather"}),
        stored(sample_note(), at="noon"),
        stored(sample_note(), job=5, type="felt"),
    ],
)  # fmt: skip
def test_what_is_no_entry_is_said_to_be_none(body: bytes) -> None:
    """One kind of error, however it is wrong."""
    with pytest.raises(EntryError) as caught:
        recorded.decode(body)

    assert not isinstance(caught.value, NewerEntry)


@given(
    st.binary(max_size=60) | st.sampled_from([stored(event) for event in sample_life()]), st.data()
)
def test_no_bytes_break_the_reader(body: bytes, data: st.DataObject) -> None:
    """An entry, or its own error."""
    at = data.draw(st.integers(0, len(body)))
    try:
        recorded.decode(body[:at] + data.draw(st.binary(max_size=3)) + body[at:])
    except EntryError:
        pass


# A version that once was, and the steps from it: what an upcaster is for.


def renamed(data: upcast.Data) -> upcast.Data:
    """Once, `called` had one string; then a list under another name."""
    return {**data, "v": 2, "words": data["argv"].split()}


def split(data: upcast.Data) -> upcast.Data:
    return {**data, "v": 3, "argv": data["words"]}


class Third(ev.Note, frozen=True, tag="called"):
    argv: tuple[str, ...]
    v: Annotated[int, msgspec.Meta(ge=3, le=3)]


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's `called` is its third version."""
    monkeypatch.setitem(recorded._KINDS, "called", Third)  # type: ignore[arg-type]
    decoder = msgspec.json.Decoder(Third)
    monkeypatch.setattr(recorded, "_decoder", lambda: decoder)
    monkeypatch.setitem(upcast.STEPS, ("called", 1), renamed)
    monkeypatch.setitem(upcast.STEPS, ("called", 2), split)


@pytest.mark.usefixtures("third")
@pytest.mark.parametrize(
    "changes", [{"argv": "a b"}, {"v": 2, "words": ["a", "b"]}, {"v": 3, "argv": ["a", "b"]}]
)
def test_an_old_version_is_brought_up_step_by_step(changes: dict[str, Any]) -> None:
    """From whichever it has."""
    times = {"job": "r.1", "at": "2026-01-02T03:04:05Z", "monotonic": 1.0}
    entry = recorded.decode(msgspec.json.encode({"type": "called", **times, **changes}))

    assert ("a", "b") == entry.argv  # type: ignore[union-attr]
    assert {"v": 3}.items() <= msgspec.json.decode(recorded.encode(entry)).items()


def test_a_version_that_is_not_written_is_the_first() -> None:
    """Whatever the words of the entry say: nothing but its own key tells its version."""
    head = {"type": "called", "job": "r.1", "at": "2026-01-02T03:04:05Z", "monotonic": 1.0}
    words = ["incus", "delete", "v", '"v":2']
    call = {"argv": words, "duration_ms": 1.0, "exit_code": 0}
    entry = recorded.decode(msgspec.json.encode({**head, **call}))

    assert isinstance(entry, ev.Called) and "delete" == entry.effect


@pytest.mark.parametrize("version", [20, 3])
def test_a_newer_version_is_none_of_ours(version: int) -> None:
    """Also one whose digits begin like today's, or that has today's within."""
    note = stored(sample_note(ev.Called), more={"v": 2}, v=version)

    assert isinstance(recorded.decode(note), ev.UnknownNote)


def test_a_variable_of_the_job_is_no_version() -> None:
    """A job may call its variables what it likes."""
    kept = spec.JobSpec(command="true", env={"v": "2"})
    event = sample_event(ev.Submitted, 1, spec=kept)

    assert event == recorded.decode(recorded.encode(event))


def test_an_event_may_have_been_of_another_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step may lead to another type."""
    monkeypatch.setitem(upcast.STEPS, ("began", 1), lambda data: {**data, "type": "running"})
    event = sample_event(ev.Running, 5)

    assert event == recorded.decode(stored(event, type="began"))


def test_an_entry_of_today_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all entries are: reading them takes no second look at their versions."""
    entries = [*sample_life(), *map(sample_note, ev.WrittenNote.__args__)]
    monkeypatch.setattr(recorded, "_decode_other", lambda body: pytest.fail(body.decode()))

    assert entries == [recorded.decode(recorded.encode(entry)) for entry in entries]


@pytest.mark.parametrize("kind", ev.WRITTEN_TYPES)
def test_the_decoder_takes_only_today_s_version(kind: type[ev.Event | ev.Note]) -> None:
    """A version that is not written is the first, also in a class that has a later one."""
    entry = sample_event(kind, 1) if issubclass(kind, ev.Event) else sample_note(kind)
    today = upcast.version_of(kind)
    first = {k: v for k, v in msgspec.json.decode(recorded.encode(entry)).items() if k != "v"}

    assert type(recorded._decoder().decode(stored(entry, v=today))) is kind
    for other in ({**first, "v": today + 1}, *([] if today == 1 else [first, {**first, "v": 1}])):
        with pytest.raises(msgspec.ValidationError):
            recorded._decoder().decode(msgspec.json.encode(other))


def test_every_old_version_has_a_step() -> None:
    """Who counts a version up writes the step from the one before."""
    for kind in ev.WRITTEN_TYPES:
        for version in range(1, upcast.version_of(kind)):
            assert (ev.tag(kind), version) in upcast.STEPS


# Who begins a job of yesterday asks today's rules.


def test_a_recorded_spec_is_judged_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rules of today, and with every key known."""
    good = sample_event(ev.Submitted, 1)
    cases = [{"command": "true", "gpus": []}, {"command": ""}, {"command": "x", "cpus": 0}]

    assert sample_shell_job() == recorded.judge(recorded.encode(good)).spec
    for kept in cases:
        with pytest.raises(SpecError):
            recorded.judge(stored(good, spec=kept))
    monkeypatch.setattr(guest_paths, "RESERVED_PATHS", ("/mnt",))
    with pytest.raises(SpecError, match="collides with /mnt"):
        recorded.judge(
            stored(good, spec={"command": "x", "mounts": [{"source": "/", "path": "/mnt/a"}]})
        )
