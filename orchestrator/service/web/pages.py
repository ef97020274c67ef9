"""The handlers of the page: the board, a run, a job, and the parts that scripts reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.errors import NotFound
from orchestrator.job.handle import JobHandle
from orchestrator.log_end import read_log_end
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import decode_query
from orchestrator.service.api.jobs import JobsQuery, find_ids
from orchestrator.service.artifacts import list_artifacts
from orchestrator.service.web import board
from orchestrator.service.web.graph import Graph, graph
from orchestrator.service.web.job import drawing, settings, steps
from orchestrator.service.web.rendering import page
from orchestrator.service.web.static_files import static
from orchestrator.service.web.summaries import Summaries, Summary
from orchestrator.service.web.usage import usage_view
from orchestrator.tracing.egress_lines import egress_lines
from orchestrator.tracing.story import egress_of
from orchestrator.tracing.timeline import Timeline, timeline
from orchestrator.usage_samples import read_samples
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

MAX_ARTIFACTS = 500
MAX_CHANGED = 50
_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Pages:
    """The pages of one orchestrator."""

    orchestrator: Orchestrator
    summaries: Summaries

    def routes(self) -> list[Route]:
        """The routes of the application."""

        def get(path: str, handler: _Handler) -> Route:
            return Route(path, handler, methods=["GET"])

        return [
            get("/", self.show_board),
            get("/runs/{run}", self.show_run),
            get("/jobs/{job}", self.show_job),
            get("/parts/board", self.board_parts),
            get("/parts/jobs/{job}", self.job_parts),
            get("/static/{version}/{name}", static),
        ]

    async def show_board(self, request: Request) -> Response:
        """The board; or, with a filter, the jobs that match it."""
        given = {key: value for key, value in request.query_params.items() if value}
        query = decode_query(given, JobsQuery)
        values: dict[str, Any] = {"query": query, "verdicts": list(Verdict), "at": await self._at()}
        if set(given) - {"before"}:
            found, following = await find_ids(self.orchestrator, query)
            jobs = await self.summaries(found)
            flaky = await self._flaky(jobs)
            return await self._page(
                request, "found.html", **values, jobs=jobs, flaky=flaky, next=following
            )
        journal = self.orchestrator.journal
        runs = await self.orchestrator.reading.journal(
            lambda: journal.newest_runs(limit=board.RUNS, before=query.before)
        )
        return await self._page(
            request,
            "board.html",
            **values,
            now=await board.now(self.orchestrator, self.summaries),
            **await self._runs([run for _, run in runs]),
            next=runs[-1][0] if len(runs) == board.RUNS else None,
        )

    async def board_parts(self, request: Request) -> Response:
        """The current jobs, and the runs that the query names."""
        runs = request.query_params.getlist("run")[:MAX_CHANGED]
        return await self._render(
            "parts/board.html",
            at=await self._at(),
            now=await board.now(self.orchestrator, self.summaries),
            **await self._runs(list(dict.fromkeys(runs))),
        )

    async def show_run(self, request: Request) -> Response:
        """The page of a run, with all its jobs."""
        run = await self.orchestrator.find_run(request.path_params["run"])
        at = await self._at()
        jobs = await self.summaries([job.id for job in run.jobs])
        groups = board.groups(jobs)
        flaky = await self._flaky([job for group in groups for job in group.jobs])
        return await self._page(
            request,
            "run.html",
            at=at,
            run=board.run(jobs),
            groups=groups,
            flaky=flaky,
            newest=await self._newest(),
        )

    async def show_job(self, request: Request) -> Response:
        """The page of a job."""
        job = await self.orchestrator.find_job(request.path_params["job"])
        path = await job.fetch_directory() / "guest.log"
        log = await self.orchestrator.reading.apart(lambda: read_log_end(path))
        return await self._page(request, "job.html", log=log, **await self._job(job))

    async def job_parts(self, request: Request) -> Response:
        """The parts of a job's page that change, without its log, which is a stream."""
        job = await self.orchestrator.find_job(request.path_params["job"])
        return await self._render("parts/job.html", **await self._job(job))

    async def _newest(self) -> int:
        journal = self.orchestrator.journal
        return await self.orchestrator.reading.journal(journal.newest_number)

    async def _at(self) -> int:
        return await self.orchestrator.reading.journal(self.orchestrator.journal.position)

    async def _runs(self, ids: Sequence[str]) -> dict[str, Any]:
        """Runs for the board, in this order, and which of their shown jobs are flaky."""
        reading, journal = self.orchestrator.reading, self.orchestrator.journal
        jobs = await reading.journal(lambda: journal.jobs_of_runs(ids))
        every = await self.summaries([job for run in ids for job in jobs.get(run, ())])
        found: dict[str, list[Summary]] = {}
        for job in every:
            found.setdefault(job.run, []).append(job)
        runs = await reading.apart(lambda: [board.run(found[run]) for run in ids if run in found])
        shown = [job for run in runs for job in (*run.told, *run.jobs)]
        return {"runs": runs, "flaky": await self._flaky(shown)}

    async def _flaky(self, jobs: Sequence[Summary]) -> set[str]:
        """The identities of flaky jobs among these."""
        identities = list({job.identity for job in jobs if job.identity is not None})
        journal = self.orchestrator.journal
        return await self.orchestrator.reading.journal(lambda: journal.flaky(identities))

    async def _job(self, handle: JobHandle) -> dict[str, Any]:
        reading = self.orchestrator.reading
        at = await self._at()
        job = await handle.look()
        line = None if job.damage else await self._timeline(job)
        directory = await handle.fetch_directory()
        files = await reading.apart(lambda: list_artifacts(directory / "artifacts"))
        samples = await reading.apart(lambda: read_samples(directory / "guest.log"))
        egress = egress_of(line) if line else None
        found = await self.summaries([job.id])
        if not found:  # garbage collection has just deleted it
            raise NotFound(f"there is no job {job.id}")
        short = found[0]
        return {
            "at": at,
            "job": job,
            "short": short,
            "waits_for": handle.waits_for(),
            "steps": steps(job),
            "drawing": drawing(line) if line else None,
            "egress": egress,
            "egress_lines": list(egress_lines(egress)) if egress else [],
            "graph": await self._graph(short),
            "missing": line.missing if line else None,
            "usage": usage_view(job, samples),
            "settings": settings(job.spec) if job.spec else {},
            "artifacts": files[:MAX_ARTIFACTS],
            "more_artifacts": max(0, len(files) - MAX_ARTIFACTS),
            "State": State,
            "newest": await self._newest(),
        }

    async def _graph(self, job: Summary) -> Graph | None:
        """The job among those that it needs and that need it."""
        journal = self.orchestrator.journal
        needs = await self.orchestrator.reading.journal(lambda: journal.needs(job.run))
        near = [id for id, needed in needs.items() if job.id in needed.values()]
        others = await self.summaries([*needs.get(job.id, {}).values(), *near])
        return graph(job, needs, {other.id: other for other in others})

    async def _timeline(self, job: Job) -> Timeline:
        journal = self.orchestrator.journal
        numbered = await self.orchestrator.reading.journal(lambda: journal.entries(job.id))
        now = None if job.ended else datetime.now(UTC)
        return timeline((entry for _, entry in numbered), until=now)

    async def _page(self, request: Request, template: str, **values: Any) -> Response:
        return await self._render(
            template,
            root=self.orchestrator.root.path.name,
            logged_in=request.scope.get("pikaci.cookie", False),
            **values,
        )

    async def _render(self, template: str, **values: Any) -> Response:
        return await self.orchestrator.reading.apart(partial(page, template, **values))
