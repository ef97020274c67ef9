"""One thing to do in Incus, as data.

An `Effect` holds all that `Incus.perform` needs to know about a command: its arguments, its
deadline, when to retry it, and how much it may print. Pure functions make effects, so that
`--dry-run`, traces, tests and the real call have the same source.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from orchestrator.incus.errors import IncusError, OutcomeUnknown

# On a busy host, Incus 6.0.4 loses all output of a short exec in a few percent of calls, and
# reports success. A command that must print something is tried this often.
SILENT_TRIES = 5
# For an answer of the daemon, or a short message of a guest.
SHORT_BYTES = 1 << 20
# For a list of all instances or images: 10,000 instances take about 40 MB.
LIST_BYTES = 256 << 20


Stdin = Callable[[], Awaitable[bytes]]


def stdin_of(make: Callable[[], bytes]) -> Stdin:
    """A stdin from a function that does not wait."""

    async def stdin() -> bytes:
        return make()

    return stdin


@dataclass(frozen=True)
class Deadline:
    """Seconds that one try may take.

    `settings` name the spec's deadlines that set it, if any: it is their sum.
    """

    secs: float
    settings: tuple[str, ...] = ()

    @property
    def set_by(self) -> str:
        """What sets the limit, in words; "" if no setting does."""
        names = " and ".join(f"deadlines.{name}" for name in self.settings)
        several = len(self.settings) > 1
        return names and f"{names} {'together set' if several else 'sets'} the limit"


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Retry a command that failed with one of `on`, for `secs` from the first failure.

    A command that succeeds but prints nothing is tried up to `silent_tries` times in all.
    """

    on: tuple[type[IncusError], ...] = ()
    secs: float = 0.0
    silent_tries: int = 1


NEVER = Retry()


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One incus command.

    `name` is its name in traces and metrics. `args` follow the program's name; `in_project` adds
    the project. A command that prints more than `max_bytes` is killed. An exit code outside
    `exit_codes` is an error; None allows any, since the exit code of an exec may be that of the
    command in the guest. Where that depends on what was printed, `takes` judges it instead. After a
    cancellation the command gets `answer_secs` more to finish, for calls whose outcome we must
    know. One that `follows` is made anew by its caller when it is cut.

    `stdin` is awaited before each try; if it raises, the command is not started. One that
    `starts_first` runs while it is awaited, and is killed if it raises. It is a function so that no
    effect holds a secret that could be shown.
    """

    name: str
    args: tuple[str, ...]
    deadline: Deadline
    retry: Retry = NEVER
    max_bytes: int = SHORT_BYTES
    exit_codes: frozenset[int] | None = frozenset({0})
    takes: Callable[[int], bool] | None = field(default=None, repr=False, compare=False)
    answer_secs: float = 0.0
    in_project: bool = True
    follows: bool = False
    stdin: Stdin | None = field(default=None, repr=False, compare=False)
    starts_first: bool = False

    def accepts(self, exit_code: int) -> bool:
        """Whether a command that ended with this exit code did not fail."""
        if self.takes is not None:
            return self.takes(exit_code)
        return self.exit_codes is None or exit_code in self.exit_codes

    @property
    def may_be_cut(self) -> bool:
        """Whether it does no harm to cut the command off: it is made anew then."""
        return self.follows or OutcomeUnknown in self.retry.on

    @property
    def longest_secs(self) -> float:
        """The longest possible time from the first start to the end of the last try."""
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
    """A request to Incus's API; `path` includes the remote and the project.

    `body` is sent as JSON, in the arguments: it must be short and public.
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
