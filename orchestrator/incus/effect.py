"""One thing to do in Incus, as data.

All that `Incus.perform` needs to know of a command stands in its `Effect`: the arguments, how long
it may take, when it is run again, how much it may print. Effects are made by pure functions, so
that `--dry-run`, traces, tests and the command that runs have the same source.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from orchestrator.incus.errors import IncusError

# On a busy host Incus 6.0.4 loses all that a short exec prints, in some of a hundred cases, and
# says that it ended well. What must have printed something is run so often.
SILENT_TRIES = 5
# An answer of the daemon, or a guest's few words.
SHORT_BYTES = 1 << 20
# A list of all instances or images: 10,000 instances have some 40 MB.
LIST_BYTES = 256 << 20


Stdin = Callable[[], Awaitable[bytes]]


def stdin_of(make: Callable[[], bytes]) -> Stdin:
    """A stdin that is made without waiting for anything."""

    async def stdin() -> bytes:
        return make()

    return stdin


@dataclass(frozen=True)
class Deadline:
    """How many seconds one try may take; `setting` is the spec's deadline that sets it, if any."""

    secs: float
    setting: str = ""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """A command that failed with one of `on` is run again, for `secs` from the first failure on.

    One that ended well and printed nothing is run `silent_tries` times in all.
    """

    on: tuple[type[IncusError], ...] = ()
    secs: float = 0.0
    silent_tries: int = 1


NEVER = Retry()


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One incus command.

    `name` is what traces and metrics call it. `args` are the command's own, behind the program;
    `in_project` adds the project to them. At most `max_bytes` of output are taken: past that, the
    command is killed. An exit code that is not in `exit_codes` is an error; None takes any, as an
    exec's may be its guest command's own. After a cancellation the command has `answer_secs` more
    to end, for what must not happen behind our back.

    `stdin` is awaited right before the command starts, for each try. It may raise, and the command
    is then not started. So no effect holds a secret, and none can be shown.
    """

    name: str
    args: tuple[str, ...]
    deadline: Deadline
    retry: Retry = NEVER
    max_bytes: int = SHORT_BYTES
    exit_codes: frozenset[int] | None = frozenset({0})
    answer_secs: float = 0.0
    in_project: bool = True
    stdin: Stdin | None = field(default=None, repr=False, compare=False)

    @property
    def longest_secs(self) -> float:
        """From the start to the end of the last try, at the most."""
        if not self.retry.on:
            return self.deadline.secs * self.retry.silent_tries
        return 2 * self.deadline.secs + self.retry.secs


def request(
    path: str,
    *,
    deadline: Deadline,
    method: str = "GET",
    body: object = None,
    retry: Retry = NEVER,
    max_bytes: int = LIST_BYTES,
) -> Effect:
    """A request to Incus's own API; `path` has its remote and its project.

    `body` is sent as JSON; it is in the arguments, so it must be short and public.
    """
    data = () if body is None else ("-d", msgspec.json.encode(body).decode())
    verb = () if method == "GET" else ("-X", method)
    return Effect(
        name="query" if method == "GET" else f"query {method}",
        args=("query", *verb, *data, path),
        deadline=deadline,
        retry=retry,
        max_bytes=max_bytes,
        in_project=False,
    )
