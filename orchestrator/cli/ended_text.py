"""What a person reads when a job has ended, while the run's other jobs continue."""

from __future__ import annotations

import trio

from orchestrator.cli.board import finished
from orchestrator.cli.style import Style
from orchestrator.cli.summary import failure_text, note
from orchestrator.cli.watched import WatchedRun
from states.outcome import Verdict


async def ended_text(
    run: WatchedRun,
    job: str,
    style: Style,
    *,
    names: int,
    width: int | None,
    log: bool,
    flaky: bool = False,
) -> str:
    """The job's line; below it, if it did not pass, why, and with `log` its last lines of output.

    A `flaky` job is called so. `names` is the width of the column of names; the line is cut to
    `width`, if there is one, and the reason is wrapped.
    """
    known = run.jobs[job]
    said = await trio.to_thread.run_sync(note, known, run.built(job))
    text = finished(
        run.name(job),
        known.verdict,
        run.word(job),
        run.spent(job),
        names=names,
        width=width,
        paint=style.paint,
        marks=style.marks,
        note=", ".join(filter(None, ("flaky" if flaky else "", said))),
    )
    text += "\n"
    if known.verdict is not Verdict.PASSED:
        text += await trio.to_thread.run_sync(
            lambda: failure_text(known, colours=style.coloured, log=log, width=width)
        )
    return text
