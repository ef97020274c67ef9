"""Who answers for the page: `/`, a run, a job; and the parts that change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api import JobsQuery, decoded_query, find_jobs, log_cancel
from orchestrator.service.artifacts import list_artifacts
from orchestrator.service.limits import read_form
from orchestrator.service.types import Cancel
from orchestrator.service.web import board
from orchestrator.service.web.job import drawing, settings, steps
from orchestrator.service.web.log_end import read_log_end
from orchestrator.service.web.rendering import page
from orchestrator.service.web.same_origin import require_same_origin
from orchestrator.service.web.static_files import static
from orchestrator.service.web.summaries import Summaries, summary
from orchestrator.tracing.timeline import timeline
from states.lifecycle import State
from states.outcome import Verdict

MAX_ARTIFACTS = 500
MAX_CHANGED = 50
CANCEL_SECS = 0.5
MAX_FORM = 8192
_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Pages:
    """The pages over one orchestrator."""

    orchestrator: Orchestrator
    summaries: Summaries

    def routes(self) -> list[Route]:
        """What the application is to have."""

        def get(path: str, handler: _Handler) -> Route:
            return Route(path, handler, methods=["GET"])

        return [
            get("/", self.show_board),
            get("/runs/{run}", self.show_run),
            get("/jobs/{job}", self.show_job),
            get("/parts/board", self.board_parts),
            get("/parts/jobs/{job}", self.job_parts),
            Route("/jobs/{job}/cancel", self.cancel, methods=["POST"]),
            get("/static/{version}/{name}", static),
        ]

    async def show_board(self, request: Request) -> Response:
        """What runs, what waits, and the newest runs; or the jobs that are looked for."""
        given = {key: value for key, value in request.query_params.items() if value}
        query = decoded_query(given, JobsQuery)
        values: dict[str, Any] = {"query": query, "verdicts": list(Verdict), "at": self._at()}
        if set(given) - {"before"}:
            found = find_jobs(self.orchestrator, query)
            jobs = [self.summaries(job.id) for job in found.jobs]
            return self._page(request, "found.html", **values, jobs=jobs, next=found.next)
        runs = self.orchestrator.journal.newest_runs(limit=board.RUNS, before=query.before)
        return self._page(
            request,
            "board.html",
            **values,
            now=board.now(self.orchestrator, self.summaries),
            runs=[self._run(run) for _, run in runs],
            next=runs[-1][0] if len(runs) == board.RUNS else None,
        )

    async def board_parts(self, request: Request) -> Response:
        """What goes on, and the runs that are named."""
        known = self.orchestrator.journal.jobs
        runs = request.query_params.getlist("run")[:MAX_CHANGED]
        return page(
            "parts/board.html",
            at=self._at(),
            now=board.now(self.orchestrator, self.summaries),
            runs=[self._run(run) for run in dict.fromkeys(runs) if known(run=run)],
        )

    async def show_run(self, request: Request) -> Response:
        """A run with all of its jobs."""
        run = self.orchestrator.run(request.path_params["run"])
        jobs = [self.summaries(job.id) for job in run.jobs]
        return self._page(
            request, "run.html", at=self._at(), run=board.run(jobs, most=len(jobs)), jobs=jobs
        )

    async def show_job(self, request: Request) -> Response:
        """A job."""
        job = self.orchestrator.job(request.path_params["job"])
        log = await trio.to_thread.run_sync(read_log_end, job.directory / "guest.log")
        return self._page(request, "job.html", log=log, **await self._job(job.id))

    async def job_parts(self, request: Request) -> Response:
        """What changes of a job's page; its log comes by itself."""
        job = self.orchestrator.job(request.path_params["job"])
        return page("parts/job.html", **await self._job(job.id))

    async def cancel(self, request: Request) -> Response:
        """End a job, as the API does; answered when that has begun."""
        require_same_origin(request)
        job = self.orchestrator.job(request.path_params["job"])
        form = await read_form(request, MAX_FORM)
        asked = Cancel(now=form.get("now") == ["1"], reason="asked for on the page")
        log_cancel([job.id], asked)
        with trio.move_on_after(CANCEL_SECS):
            # It goes on when nobody waits for it any more; the page shows how far it is.
            await job.cancel(reason=asked.reason, now=asked.now)
        return RedirectResponse(f"/jobs/{job.id}", status_code=303)

    def _at(self) -> int:
        return self.orchestrator.journal.position()

    def _run(self, run: str) -> board.Run:
        rows = self.orchestrator.journal.jobs(run=run)
        return board.run([self.summaries(row.id) for row in rows])

    async def _job(self, id: str) -> dict[str, Any]:
        at = self._at()
        handle = self.orchestrator.job(id)
        job = handle.job
        entries = [entry for _, entry in self.orchestrator.journal.entries(id)]
        files = await trio.to_thread.run_sync(list_artifacts, handle.directory / "artifacts")
        now = None if job.ended else datetime.now(UTC)
        return {
            "at": at,
            "job": job,
            "short": summary(job),
            "waits_for": handle.waits_for(),
            "steps": steps(job),
            "drawing": drawing(timeline(entries, until=now)),
            "settings": settings(job.spec) if job.spec else {},
            "artifacts": files[:MAX_ARTIFACTS],
            "more_artifacts": max(0, len(files) - MAX_ARTIFACTS),
            "State": State,
        }

    def _page(self, request: Request, template: str, **values: Any) -> Response:
        return page(
            template,
            root=self.orchestrator.bench.root.path.name,
            logged_in=request.scope.get("pikaci.cookie", False),
            **values,
        )
