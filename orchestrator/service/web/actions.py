"""What the page's buttons do: cancel and rerun jobs and runs.

A form is taken only from a page of this service; see `same_origin`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from orchestrator.errors import UsageError
from orchestrator.job.rerun import jobs_to_rerun, rerun_request
from orchestrator.journal import JobRow
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.jobs import log_cancel
from orchestrator.service.api.runs import accept
from orchestrator.service.limits import read_form
from orchestrator.service.problems import Problem
from orchestrator.service.types import Cancel
from orchestrator.service.web.same_origin import require_same_origin

CANCEL_SECS = 0.5
MAX_FORM = 8192
_NUMBER = re.compile("[0-9]{1,18}")


@dataclass(frozen=True)
class Actions:
    """The forms of the page. Once `stopping` is set, nothing is submitted."""

    orchestrator: Orchestrator
    stopping: trio.Event

    def routes(self) -> list[Route]:
        """The routes of the application."""

        def post(path: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
            return Route(path, handler, methods=["POST"])

        return [
            post("/jobs/{job}/cancel", self.cancel_job),
            post("/jobs/{job}/rerun", self.rerun_job),
            post("/runs/{run}/cancel", self.cancel_run),
            post("/runs/{run}/rerun", self.rerun_run),
        ]

    async def cancel_job(self, request: Request) -> Response:
        """Cancel a job, as the API does, but answer once the cancellation has begun."""
        form = await _form(request)
        job = await self.orchestrator.find_job(request.path_params["job"])
        return await self._cancel([job.id], form, f"/jobs/{job.id}")

    async def cancel_run(self, request: Request) -> Response:
        """The same for all jobs of a run that have not ended."""
        form = await _form(request)
        run = await self.orchestrator.find_run(request.path_params["run"])
        rows = await self._rows([job.id for job in run.jobs])
        return await self._cancel(
            [row.id for row in rows if not row.ended], form, f"/runs/{run.id}"
        )

    async def _cancel(self, jobs: list[str], form: dict[str, str], there: str) -> Response:
        asked = Cancel(now=form.get("now") == "1", reason="asked for on the page")
        log_cancel(jobs, asked)
        with trio.move_on_after(CANCEL_SECS):
            # The cancellation continues without us; the page shows its progress.
            await self.orchestrator.cancel(jobs, reason=asked.reason, now=asked.now)
        return RedirectResponse(there, status_code=303)

    async def rerun_job(self, request: Request) -> Response:
        """Submit a job again, with what it needs, on the same snapshot."""
        form = await _form(request)
        job = await self.orchestrator.find_job(request.path_params["job"])
        return await self._rerun(await self._rows([job.id]), form, job.id)

    async def rerun_run(self, request: Request) -> Response:
        """Submit the jobs of a run again, or with `failed` those that did not pass."""
        form = await _form(request)
        run = await self.orchestrator.find_run(request.path_params["run"])
        return await self._rerun(await self._rows([job.id for job in run.jobs]), form, run.id)

    async def _rerun(self, rows: list[JobRow], form: dict[str, str], name: str) -> Response:
        if self.stopping.is_set():
            raise Problem(
                503,
                "the service is stopping",
                resolution="try again when the service is back",
            )
        reading, journal = self.orchestrator.reading, self.orchestrator.journal
        failed = form.get("failed") == "1"
        jobs = await reading.journal(lambda: jobs_to_rerun(journal, rows, failed=failed))
        if not jobs:
            raise UsageError("no job of this run failed: nothing to rerun")
        # A double click sends the form twice: `newest` is the newest run that its page knew.
        newest = form.get("newest", "")
        if not _NUMBER.fullmatch(newest):
            raise Problem(400, "the form lacks `newest`", resolution="reload the page")
        key = f"page: rerun {name}{' failed' if failed else ''} after #{newest}"
        root = self.orchestrator.root
        wanted = await reading.apart(lambda: rerun_request(root, jobs, key=key))
        run, _, _ = await accept(self.orchestrator, wanted, [])
        return RedirectResponse(f"/runs/{run.id}", status_code=303)

    async def _rows(self, jobs: Sequence[str]) -> list[JobRow]:
        journal = self.orchestrator.journal
        return await self.orchestrator.reading.journal(lambda: journal.rows(jobs))


async def _form(request: Request) -> dict[str, str]:
    """The first value of each field of a form that one of our own pages sent."""
    require_same_origin(request)
    form = await read_form(request, MAX_FORM)
    return {name: values[0] for name, values in form.items()}
