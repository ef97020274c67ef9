"""What a start is given: three variables, and records on stdin."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from .guest import CONTRACT, DEADLINE_SECS, Ended, Guest, records, variables, wait_for

NAMES: dict[str, str] = CONTRACT["variables"]
REQUIRED = [NAMES["command"], NAMES["timeout_secs"], NAMES["run_as_root"]]


def start_with(guest: Guest, env: Mapping[str, str | bytes], stdin: bytes) -> Ended:
    process = guest.popen(env=env)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    return guest.ended(process)


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
@pytest.mark.parametrize("name", REQUIRED)
def test_missing_variable(guest: Guest, name: str, value: str | None) -> None:
    """Without any one of the three nothing runs; log, exec and result name the variable."""
    env = variables("echo ran >/artifacts/ran", 5, root=False)
    del env[name]
    if value is not None:
        env[name] = value
    ended = start_with(guest, env, records({"PIKACI_INCUS_NONCE": "n0nce"}))

    assert ended.result is not None
    expected = ("error", 125, f"{name} is not set", "n0nce")
    keys = ("status", "exit_code", "message", "nonce")
    assert expected == tuple(ended.result[key] for key in keys)
    assert 125 == ended.code
    assert f"[pikaci] error: {name} is not set\n".encode() == ended.output
    assert not guest.path("/artifacts/ran").exists()


BAD_LIMITS = ["0", "-1", "1.5", "08", "5s", "10000000", "$(id)", "1\n2"]
BAD = [(NAMES["timeout_secs"], value) for value in BAD_LIMITS]
BAD += [(NAMES["run_as_root"], value) for value in ["true", "2", "01", "yes"]]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_variable(guest: Guest, name: str, value: str) -> None:
    """A value that the contract does not allow is refused by name, and nothing runs."""
    env = variables("echo ran >/artifacts/ran", 5, root=False) | {name: value}
    ended = start_with(guest, env, b"")

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)
    assert name in ended.result["message"]
    assert not guest.path("/artifacts/ran").exists()


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (b"PIKACI_INCUS_GRACE_SECS=-1", "PIKACI_INCUS_GRACE_SECS"),
        (b"PIKACI_INCUS_GRACE_SECS=", "PIKACI_INCUS_GRACE_SECS"),
        (b"PIKACI_INCUS_LEASE_SECS=soon", "PIKACI_INCUS_LEASE_SECS"),
        (b"PIKACI_INCUS_LEASE_SECS=100000000", "PIKACI_INCUS_LEASE_SECS"),
        (b"PIKACI_INCUS_SCRATCH=yes", "PIKACI_INCUS_SCRATCH"),
        (b"PIKACI_INCUS_LOG_BYTES=1MiB", "PIKACI_INCUS_LOG_BYTES"),
        (b'PIKACI_INCUS_NONCE=a"b', "PIKACI_INCUS_NONCE"),
        (b"PIKACI_INCUS_NONCE=" + b"n" * 129, "PIKACI_INCUS_NONCE"),
        (b"a-b=1", "a-b"),
        (b"1a=1", "1a"),
        (b"novalue", "novalue"),
        (b"=x", "not a name"),
        (b"", "not a name"),
        (b'"\\\n\xff=x', "not a name"),
        (b"UID=0", "UID"),
        (b"BIG=" + b"x" * 131068, "BIG"),
    ],
    ids=lambda value: repr(value[:40]),  # an environment variable holds the test's name
)
def test_bad_record(guest: Guest, record: bytes, word: str) -> None:
    """A record that cannot be passed on is refused, in a result that is JSON whatever it holds."""
    env = variables("echo ran >/artifacts/ran", 5, root=False)
    last = b"" if record.startswith(b"PIKACI_INCUS_NONCE") else b"PIKACI_INCUS_NONCE=n0nce\0"
    ended = start_with(guest, env, record + b"\0" + last)

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)
    assert word in ended.result["message"]
    assert not guest.path("/artifacts/ran").exists()


def test_too_large_environment(guest: Guest) -> None:
    """Over a million bytes of environment is refused: the kernel might refuse the exec itself."""
    ended = guest.run("true", send={f"V{n}": "x" * 100_000 for n in range(11)})

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)


def test_largest_environment(guest: Guest) -> None:
    """A record of 131,071 bytes passes, and so do 900,000 bytes together."""
    values = {f"V{n}": "x" * (131071 - 3) for n in range(6)}
    ended = guest.run('printf %s "${#V5}"', send=values)

    assert b"131068" == ended.output


COMMANDS = {
    b'printf %s "a  b" \'c"d\' \\$HOME': b'a  bc"d$HOME',
    b"printf '%s\\n' one\nprintf '%s' two": b"one\ntwo",
    "printf %s 'grüße → 世界'".encode(): "grüße → 世界".encode(),
    b"printf %s '$(id) `id` ${x} !! \\ * ? ~ #'": b"$(id) `id` ${x} !! \\ * ? ~ #",
    b"printf %s 'tab\there'\n# a comment\n\n": b"tab\there",
    b"  printf %s -n; :": b"-n",
}


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
@pytest.mark.parametrize("command", COMMANDS)
def test_command_byte_for_byte(guest: Guest, command: bytes, root: bool) -> None:
    """Quotes, line breaks, dollars, spaces, UTF-8: the job's shell gets the command as it is."""
    assert COMMANDS[command] == guest.run(command, root=root).output


def test_longest_command(guest: Guest) -> None:
    """A command of 131,000 bytes runs."""
    text = "x" * (131_000 - len("printf %s ''"))

    assert len(text) == len(guest.run(f"printf %s '{text}'").output)


def test_shell_options(guest: Guest) -> None:
    """The command's shell stops at the first error, minds pipes, and reads no start-up files."""
    ended = guest.run("echo $-; shopt -o pipefail; shopt login_shell; false; echo not reached")

    flags, *rest = ended.output.decode().splitlines()
    assert "e" in flags
    assert ["pipefail       \ton", "login_shell    \ton"] == rest


# Names that the runner's own shell code uses, or that mean something to bash. (Two are not here
# that the job's own bash never takes over from its environment: IFS, and for root PS4.)
AWKWARD = [
    "A", "pair", "pairs", "name", "command", "certs", "REPLY", "LD_LIBRARY_PATH", "BASH_ENV",
    "ENV", "CDPATH", "POSIXLY_CORRECT", "nonce", "SELF", "PATH", "HOME", "CARGO_HOME", "LANG",
]  # fmt: skip


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
@pytest.mark.parametrize(
    "value",
    [b"", bytes(range(1, 256)), b"\xff'\"\n\n=$(id)`id`\\\x01\x7f\x01 "],
    ids=["empty", "all bytes", "quotes"],
)
def test_any_value_of_any_name(guest: Guest, value: bytes, root: bool) -> None:
    """The job sees every variable that it was sent, byte for byte; none acts on the runner."""
    send = dict.fromkeys(AWKWARD, value)
    ended = guest.run("exec /bin/cat /proc/self/environ", root=root, send=send)

    seen = ended.output.split(b"\0")
    missing = [name for name in AWKWARD if name.encode() + b"=" + value not in seen]
    assert [] == missing


def test_reserved_names_stay_outside(guest: Guest) -> None:
    """No variable of the runner's own reaches the job."""
    ended = guest.run(
        "env", send={"PIKACI_INCUS_GRACE_SECS": "1", "PIKACI_INCUS_LOG_BYTES": "1000000"}
    )

    assert b"PIKACI_INCUS" not in ended.output


def test_usage(guest: Guest) -> None:
    """Unknown words are refused."""
    for words in (["bogus"], ["follow"], ["cancel", "later"], ["follow", "1", "2"]):
        assert 125 == guest.call(*words)[0]


@pytest.mark.parametrize("kept", [1, 4, 8, 12, 20, 27])
def test_cut_short(guest: Guest, kept: int) -> None:
    """A stdin that a killed client did not finish runs nothing: the nonce, which is last, is missing."""
    env = variables("echo ran >/artifacts/ran", 5, root=False)
    whole = records({"A": "one", "B": "two", "PIKACI_INCUS_NONCE": "n0nce"})
    ended = start_with(guest, env, whole[:kept])

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)
    assert "cut short" in ended.result["message"]
    assert not guest.path("/artifacts/ran").exists()


@pytest.mark.parametrize(
    "stdin",
    [b"", b"A=1\0", b"A=1\0PIKACI_INCUS_NONCE=n0", b"PIKACI_INCUS_NONCE", b"\0"],
    ids=["empty", "no nonce", "half a nonce", "half a name", "an empty record"],
)
def test_cut_stdin_starts_nothing_that_needs_its_nonce(guest: Guest, stdin: bytes) -> None:
    """A host that died while it started a job may leave that; its next start is the first one."""
    command = "echo ran >>/artifacts/ran"
    env = variables(command, 5, root=False) | {NAMES["needs_nonce"]: "1"}
    cut = start_with(guest, env, stdin)
    cancelled = guest.call("cancel")
    followed = guest.call("follow", "0")

    assert (75, b"", None) == (cut.code, cut.log, cut.result)
    assert b"stdin was cut short" in cut.stderr
    for code, _, stderr in (cancelled, followed):
        assert (125, b"pikaci-incus-run: no job was started in this guest\n") == (code, stderr)
    assert not guest.path("/artifacts/ran").exists()

    again = start_with(guest, env, records({"PIKACI_INCUS_NONCE": "n0nce"}))

    assert again.result is not None
    assert ("passed", "n0nce", 0) == (again.result["status"], again.result["nonce"], again.code)
    assert "ran\n" == guest.path("/artifacts/ran").read_text()


def test_nonce_starts_a_job_whose_stdin_stays_open(guest: Guest) -> None:
    """A connection that hangs behind the last record delays nothing."""
    env = variables("echo ran", 5, root=False) | {NAMES["needs_nonce"]: "1"}
    process = guest.popen(env=env)
    assert process.stdin is not None
    process.stdin.write(records({"PIKACI_INCUS_NONCE": "n0nce"}))
    process.stdin.flush()

    wait_for(process.stdout, b"ran\n")
    process.stdin.close()
    process.stdin = None
    ended = guest.ended(process)

    assert ended.result is not None and "n0nce" == ended.result["nonce"]


def test_start_waits_for_another_whose_stdin_is_cut(guest: Guest) -> None:
    """The other one is that of a host that is dying: what comes after it starts the job."""
    env = variables("echo ran >>/artifacts/ran", 5, root=False) | {NAMES["needs_nonce"]: "1"}
    dying = guest.popen(env=env)
    next_ = guest.popen(env=env)
    assert dying.stdin is not None and next_.stdin is not None
    next_.stdin.write(records({"PIKACI_INCUS_NONCE": "n0nce"}))
    next_.stdin.flush()
    dying.stdin.close()
    dying.stdin = None
    codes = dying.wait(DEADLINE_SECS)
    ended = guest.ended(next_)

    assert ended.result is not None and "n0nce" == ended.result["nonce"]
    assert codes in (75, 0)  # it may have come too late to start anything, and attached
    assert "ran\n" == guest.path("/artifacts/ran").read_text()
