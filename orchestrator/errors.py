"""Errors that a caller of pikaci can cause, apart from those in a spec; and tools for errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from states.errors import PikaciError


class UsageError(PikaciError):
    """The request cannot be carried out; nothing was touched."""


class NotFound(UsageError):
    """Nothing has this name."""


class KeyTaken(UsageError):
    """This key was used before, for other jobs."""


class SnapshotError(PikaciError):
    """A workspace cannot be read, or the disk has no space for its snapshot."""


class NoJobs(PikaciError):
    """The job file has no jobs."""


async def collect_errors(
    report: Callable[[BaseException], None], call: Callable[[], Awaitable[None]]
) -> None:
    """Await `call`, and pass a `PikaciError` or `OSError` to `report` instead of raising it.

    So one job's broken journal or files do not stop the others.
    """
    try:
        await call()
    except* (PikaciError, OSError) as group:
        report(cause_of(group))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, including nested groups; or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def cause_of(error: BaseException) -> BaseException:
    """The single error in a group; the group itself if it has several."""
    found = list(leaves(error))
    return found[0] if len(found) == 1 else error


@contextmanager
def one_error() -> Iterator[None]:
    """Put around a nursery: if a single error comes out, raise it without its exception group."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause = cause_of(group)
        if cause is group:
            raise
        raise cause from cause.__cause__


@contextmanager
def first_error(*kinds: type[PikaciError]) -> Iterator[None]:
    """Put around a nursery whose tasks may fail at once: raise the one of the foremost kind.

    A cancellation beside it comes again at the next checkpoint. Errors of other kinds are bugs, and
    stay in their group.
    """
    try:
        with one_error():
            yield
    except BaseExceptionGroup as group:
        from trio import Cancelled

        errors = [one for one in leaves(group) if not isinstance(one, Cancelled)]
        if not errors or not all(isinstance(one, kinds) for one in errors):
            raise
        cause = min(errors, key=lambda one: [isinstance(one, kind) for kind in kinds].index(True))
        raise cause from cause.__cause__


def unforeseen(cause: BaseException) -> PikaciError:
    """An error for what no effect reports as a fault: the host's own disk, or a bug."""
    if isinstance(cause, OSError):
        return PikaciError(
            f"the host could not store the job's data: {cause}",
            resolution="check the free space and the permissions of the state root",
        )
    return PikaciError(
        f"internal error: {cause!r}",
        resolution="this is a bug in pikaci: please report it with `pikaci trace`",
    )
