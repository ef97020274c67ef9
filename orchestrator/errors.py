"""Errors of whoever calls pikaci, beside those of a spec."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from states.errors import PikaciError


class UsageError(PikaciError):
    """What was asked for cannot be carried out as it was said; nothing was touched."""


class NotFound(UsageError):
    """There is nothing of this name."""


class KeyTaken(UsageError):
    """A key stands for other jobs already."""


class SnapshotError(PikaciError):
    """A workspace cannot be read, or there is no room for its snapshot."""


class NoJobs(PikaciError):
    """The job file has no jobs."""


async def collect_errors(
    report: Callable[[BaseException], None], call: Callable[[], Awaitable[None]]
) -> None:
    """Await `call`. `report` gets what is wrong with its journal or its files; it goes no further.

    So a job that cannot go on ends none of those beside it.
    """
    try:
        await call()
    except* (PikaciError, OSError) as group:
        report(cause_of(group))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group and in the groups within it; without one, the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def cause_of(error: BaseException) -> BaseException:
    """The error that a group has, as it was raised; the group when it has several."""
    found = list(leaves(error))
    return found[0] if len(found) == 1 else error


@contextmanager
def one_error() -> Iterator[None]:
    """Around a nursery: the one error that came out of it is raised as it was, in no group."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause = cause_of(group)
        if cause is group:
            raise
        raise cause from cause.__cause__


def unforeseen(cause: BaseException) -> PikaciError:
    """What no effect told as a fault: the host's own disk, or a bug."""
    if isinstance(cause, OSError):
        return PikaciError(
            f"the host could not store what the job gave: {cause}",
            resolution="look at the space and the permissions of the state root's disk",
        )
    return PikaciError(
        f"internal error: {cause!r}",
        resolution="this is a bug of pikaci: please report it with `pikaci trace`",
    )
