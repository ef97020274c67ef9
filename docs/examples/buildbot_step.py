"""A step of Buildbot whose command runs in a throw-away guest, on the worker's machine.

    from buildbot_step import Pikaci      # in the directory of master.cfg

    factory.addStep(steps.Git(...))
    factory.addStep(Pikaci("make check", flags=["--memory", "8GiB"]))

The guest sees the builder's directory. What the command leaves in /artifacts is copied to
pikaci-artifacts, next to `build` in the worker's builder. `pikaci` must be in the worker's PATH.
After an infrastructure fault, Buildbot retries the whole build, until somebody cancels it.
"""

from collections.abc import Sequence
from typing import Any

from buildbot.plugins import steps, util
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SUCCESS

# The codes of `--exit-code command`. Any other code is the command's own, and a failure.
CODES = {0: SUCCESS, 240: FAILURE, 241: RETRY, 242: EXCEPTION, 243: CANCELLED}
# A builder runs one build at a time here. What still runs is from a worker that was killed.
SCRIPT = """
[ ! -d "$PIKACI_STATE_ROOT" ] || pikaci cancel --all >&2 || exit 241
rm -rf ../pikaci-artifacts
exec pikaci run --exit-code command --workspace . --scratch "$@" </dev/null
"""


class Pikaci(steps.ShellCommand):
    """`command` is a shell line; `flags` are those of `pikaci run`."""

    def __init__(self, command: str, flags: Sequence[str] = (), **options: Any) -> None:
        name = options.setdefault("name", "pikaci")
        key = util.Interpolate(f"%(prop:buildername)s-%(prop:buildnumber)s-{name}")
        artifacts = ["--artifact", "**", "--artifacts-to", "../pikaci-artifacts"]
        super().__init__(
            command=[
                *("sh", "-c", SCRIPT, "pikaci", "--key", key),
                *(*artifacts, *flags, "--", command),
            ],
            env={"PIKACI_STATE_ROOT": util.Interpolate("%(prop:builddir)s/pikaci-state")},
            decodeRC=CODES,
            interruptSignal="TERM",
            sigtermTime=60,
            **options,
        )
