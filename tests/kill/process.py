"""pikaci in a real process that dies at a fault point.

    python -m tests.kill.process --point incus:launch:during -- run -- make test
    python -m tests.kill.process --reached points.txt -- resume

Behind `--` stands pikaci's own command line, which is run as it is. Only what it asks of Incus,
its journal's SQL and its files are looked at (tests.kill.points).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec
import trio

import orchestrator.cli
import orchestrator.settings
from orchestrator import Capacity, JobSpec, Orchestrator, Settings, WarmGuests
from orchestrator.attempt import lease as held_lease
from orchestrator.hosts import ssh_link
from orchestrator.incus import Completed, Feed, Incus, Sink, Stdin, spawn_process
from tests.kill.fake_daemon import FakeClient
from tests.kill.points import Points, WatchedSpawn, watch_files, watch_journal

# A real client has sent its request by then, and the daemon has hardly begun.
DURING_SECS = 0.03


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How the process is to live and die.

    `point` is where it dies, and `group` whether its process group does too. `reached` is a file
    for the points that it came by. `incus` is the socket of a fake daemon; the real one without.
    `unanswered_secs` is how long a create that was never answered is waited for. `environment` is
    what leads to another host. With `warm` it is no pikaci, but a program of the library whose
    second job finds a warm guest.
    """

    point: str = ""
    group: bool = False
    reached: str = ""
    incus: str = ""
    unanswered_secs: float | None = None
    environment: dict[str, str] = {}
    warm: bool = False


def live(options: Options, root: Path, args: Sequence[str]) -> None:
    """Be `pikaci ARGS` on this state root. Does not return."""
    reached = Path(options.reached) if options.reached else None
    points = Points(options.point, reached=reached, group=options.group)
    client = FakeClient(Path(options.incus), outlives=not options.group) if options.incus else _real
    spawn = WatchedSpawn(client, points)
    incus = Incus(root.parent / "conf", spawn=spawn)
    for module in [one for name, one in sys.modules.items() if name.startswith("orchestrator.")]:
        if "open_incus" in vars(module):  # also by its name in a module that was imported before
            vars(module)["open_incus"] = lambda host=None, **options: incus
    if options.unanswered_secs is not None:
        assert "UNANSWERED_CREATE_SECS" in vars(held_lease)
        vars(held_lease)["UNANSWERED_CREATE_SECS"] = options.unanswered_secs
    os.environ |= {**options.environment, "PIKACI_STATE_ROOT": str(root)}
    assert "spawn_process" in vars(ssh_link)
    vars(ssh_link)["spawn_process"] = WatchedSpawn(_real, points)
    watch_journal(points)
    watch_files(points, root)
    if options.warm:
        trio.run(_run_warm, incus, root, args[0])
        sys.exit()
    sys.argv = ["pikaci", *args]
    orchestrator.cli.main()


async def _run_warm(incus: Incus, root: Path, command: str) -> None:
    settings = Settings(
        Path.cwd(), state_root=root, capacity=Capacity(jobs=1), warm=WarmGuests(size=1)
    )
    spec = JobSpec(command=command, artifacts=("kept.txt",))
    async with Orchestrator.open(settings, incus=incus) as orchestrator:
        await orchestrator.submit_and_wait(spec)
        while not orchestrator.statistics().warm:
            await trio.sleep(0.01)
        await orchestrator.submit_and_wait(spec)


async def _real(
    argv: Sequence[str],
    *,
    env: dict[str, str],
    stdin: bytes | Stdin,
    sink: Sink | None,
    asked: Callable[[], None],
    feed: Feed | None = None,
) -> Completed:
    async def soon() -> None:
        await trio.sleep(DURING_SECS)
        asked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(soon)
        ended = await spawn_process(argv, env=env, stdin=stdin, sink=sink, feed=feed)
        nursery.cancel_scope.cancel()
    return ended


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--point", default="", help="Die here.")
@click.option("--group", is_flag=True, help="With the whole process group.")
@click.option("--reached", default="", help="A file for the names of the points on the way.")
@click.option("--state-root", required=True, type=click.Path(path_type=Path))
@click.argument("args", nargs=-1)
def main(point: str, group: bool, reached: str, state_root: Path, args: tuple[str, ...]) -> None:
    """Be `pikaci ARGS` on the real Incus, in a session of its own."""
    os.setsid()
    live(Options(point=point, group=group, reached=reached), state_root.absolute(), args)


if __name__ == "__main__":
    main()
