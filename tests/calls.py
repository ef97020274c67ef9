"""Incus commands of a test's own, beside those that pikaci makes."""

from orchestrator.incus import Completed, Deadline, Effect, Incus, Sink, stdin_of, to_sink

MANY_BYTES = 1 << 32


async def call(
    incus: Incus,
    *args: str,
    deadline_secs: float = 60.0,
    stdin: bytes = b"",
    sink: Sink | None = None,
    check: bool = True,
    in_project: bool = True,
) -> Completed:
    """Run `incus ARGS...` to its end; with `check`, an exit code other than 0 raises."""
    effect = Effect(
        name="test",
        args=args,
        deadline=Deadline(deadline_secs),
        max_bytes=MANY_BYTES,
        exit_codes=frozenset({0}) if check else None,
        in_project=in_project,
        stdin=stdin_of(lambda: stdin),
    )
    return await incus.perform(effect, into=to_sink(sink) if sink else None)
