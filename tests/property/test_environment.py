"""Whatever environment a spec may have, the runner takes, and the command sees."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from states.environment import KEPT_BY_BASH, MAX_BYTES, MAX_VARIABLE_BYTES
from states.errors import SpecError
from states.rules import CheckedSpec
from states.spec import JobSpec
from tests.runner.guest import CONTRACT, Guest

# Names that mean something to a shell, a C library or the runner; and any others.
NOT_KEPT = [
    "A", "PATH", "HOME", "LC_ALL", "BASH_ENV", "TMOUT", "REPLY", "FUNCNEST", "POSIXLY_CORRECT", "CDPATH",
    "HISTFILE", "MAPFILE", "SELF", "pairs", "LD_PRELOAD", "BASH_XTRACEFD", "TZ", "SHELL", "HOSTNAME",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from([*sorted(KEPT_BY_BASH), *NOT_KEPT, "PIKACI_X"]),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True),
    st.text(max_size=8),
)
VALUES = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{}{}".format,
        st.sampled_from(["", "é"]),
        st.sampled_from([MAX_VARIABLE_BYTES - 9, MAX_VARIABLE_BYTES, 100_000]).map("x".__mul__),
    ),
)
ALL = {f"V{n}": "x" * 99_896 for n in range(10)}
assert sum(len(f"{name}={value}") for name, value in ALL.items()) + len("CI=true") < MAX_BYTES


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One guest for all examples: what a job left is removed before the next."""
    if os.geteuid() != 0:
        pytest.fail("the runner's tests make mount and PID namespaces: run them as root")
    with Guest(tmp_path_factory.mktemp("guest")) as guest:
        yield guest


def clear(guest: Guest) -> None:
    paths = (CONTRACT["private"], CONTRACT["log"], CONTRACT["result"])
    guest.shell(f"rm -rf {' '.join(paths)}; chown -R 1000:100 {CONTRACT['artifacts']}")


def is_let_in(env: dict[str, str]) -> bool:
    try:
        CheckedSpec(JobSpec(command="true", env=env))
    except SpecError:
        return False
    return True


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(env=st.dictionaries(NAMES, VALUES, max_size=6), root=st.booleans())
@example(env=ALL, root=False)
@example(env={"A": "x" * (MAX_VARIABLE_BYTES - len("A="))}, root=True)
@example(env=dict.fromkeys(NOT_KEPT, "/x y\n"), root=False)
def test_what_is_let_in_reaches_the_command(guest: Guest, env: dict[str, str], root: bool) -> None:
    """Byte for byte; what the runner would refuse, or bash drop, is refused at the door."""
    taken = {name: value for name, value in env.items() if is_let_in({name: value})}
    event(f"{len(taken)} of {len(env)} let in")
    assert is_let_in(taken)
    clear(guest)
    command = "exec /bin/cat /proc/self/environ >/artifacts/environ"
    ended = guest.run(command, root=root, send=taken)

    assert ended.result is not None
    assert "passed" == ended.result["status"], ended.output[-1000:]
    seen = set(guest.path("/artifacts/environ").read_bytes().split(b"\0"))
    assert [] == [name for name in taken if f"{name}={taken[name]}".encode() not in seen]
