"""The analyst's port: page, `/livez`, `/readyz`, `/metrics`, and its JSON API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import msgspec
import numpy as np
from aiohttp import web

from model.analysis import coverage
from streams.analyst.analyst import Analyst
from streams.analyst.answers import questions
from streams.analyst.answers.next_actions import ShareQuestion, predict
from streams.analyst.answers.questions import DiffusionQuestion, SeedQuestion
from streams.analyst.background import Analysis
from streams.analyst.measures import Measures
from streams.errors import AnalystError, one_line
from streams.messages.headers import rfc3339
from streams.settings.settings import Settings
from streams.telemetry.metrics import CONTENT_TYPE
from streams.worker.web.auth import Guard
from streams.worker.web.openapi import ApiDocument
from streams.worker.web.pages import page

PAGE = Path(__file__).parent / "static" / "page.html"
Question = TypeVar("Question", SeedQuestion, DiffusionQuestion, ShareQuestion)

LIMIT = 1_000
FOLLOWERS = {"followers": "0", "followers_below": str(1 << 62)}
"""Bounds of a ranking: the least followers, and the number that all are below."""
ORDERS = ("pagerank", "interaction_pagerank", "core", "followers", "following")
QUALITY = "quality_followers"
"""The order that needs a round."""


class NotReady(AnalystError):
    """The question cannot be answered yet."""


class Pages:
    """The handlers; an error is `{"error": message}`.

    Args:
        analyst: what the handlers show.
    """

    def __init__(self, analyst: Analyst) -> None:
        self._analyst = analyst
        self._one_at_a_time, self._predictions = asyncio.Semaphore(1), asyncio.Semaphore(1)

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        for path, handler in (
            ("/livez", self.live),
            ("/readyz", self.ready),
            ("/metrics", self.metrics),
            ("/api/v1/top", self.top),
            ("/", self.page),
            ("/api/v1/users/{id}", self.user),
            ("/api/v1/seeds", self.published_seeds),
            ("/api/v1/bots", self.bots),
        ):
            app.router.add_get(path, handler)
        app.router.add_post("/api/v1/seeds", self.seeds)
        app.router.add_post("/api/v1/diffuse", self.diffuse)
        app.router.add_post("/api/v1/predict/share", self.predict_share)
        # The paths are partly those of a worker, with other responses.
        ApiDocument("Groundswell analyst", {}).add_to(app)

    async def page(self, _: web.Request) -> web.Response:
        """Return the analyst's page."""
        text, policy = page(PAGE)
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def live(self, _: web.Request) -> web.Response:
        """Return 200: the loop that answers is the one that follows the log."""
        return web.json_response({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        """Return 200 once the graph is rebuilt and published, else 503 and what the analyst does."""
        ready = self._analyst.ready
        detail = "ready" if ready else self._analyst.detail
        return web.json_response({"ready": ready, "detail": detail}, status=200 if ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Return all metrics in Prometheus' text format."""
        return web.Response(body=self._analyst.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def top(self, request: web.Request) -> web.Response:
        """Return the users with the largest value of `by`; with `followers`, `followers_below`: of those between."""
        measures = self._analyst.measures
        if measures is None:
            return _error(503, f"not ready: {self._analyst.detail}")
        by, limit = request.query.get("by", ORDERS[0]), request.query.get("limit", "20")
        if by == QUALITY:
            return self._by_quality(limit)
        if by not in ORDERS or not limit.isdecimal() or not 0 < int(limit) <= LIMIT:
            return _error(400, f"by must be one of {', '.join((*ORDERS, QUALITY))}, limit a number from 1 to {LIMIT}")
        least, below = (request.query.get(name, text) for name, text in FOLLOWERS.items())
        if not (least.isdecimal() and below.isdecimal()):
            return _error(400, f"{' and '.join(FOLLOWERS)} must be whole numbers")
        ranked = measures.live & (measures.followers >= int(least)) & (measures.followers < int(below))
        values = np.where(ranked, getattr(measures, by), -1.0)
        rows = np.argsort(-values, kind="stable")[: min(int(limit), int(ranked.sum()))]
        top = [{"user": measures.ids[row], **measures.of_user(row)} for row in rows.tolist()]
        return web.json_response({"top": top, "by": by, **_moment(measures)})

    async def user(self, request: web.Request) -> web.Response:
        """Return the measures of one user."""
        measures = self._analyst.measures
        if measures is None:
            return _error(503, f"not ready: {self._analyst.detail}")
        user = request.match_info["id"]
        row = measures.row(user)
        if row is None:
            return _error(404, "no such user, or a forgotten one")
        answer = {"user": user, **measures.of_user(row), "component": measures.ids[measures.component[row]]}
        return web.json_response({**answer, **_of_analysis(self._analyst.background.latest, row), **_moment(measures)})

    def _by_quality(self, limit: str) -> web.Response:
        """Return the users with most followers by quality, in descending order."""
        return self._of_round(limit, lambda analysis, number: {"by": QUALITY, **questions.audiences(analysis, number)})

    async def bots(self, request: web.Request) -> web.Response:
        """Return the accounts of the lowest quality, and the users with most followers that do not count."""
        return self._of_round(request.query.get("limit", "20"), questions.bots)

    def _of_round(self, limit: str, answer: Callable[[Analysis, int], dict[str, Any]]) -> web.Response:
        """Return an answer from the last round."""
        analysis = self._analyst.background.latest
        if not limit.isdecimal() or not 0 < int(limit) <= LIMIT:
            return _error(400, f"limit must be a number from 1 to {LIMIT}")
        if analysis is None:
            return _error(503, "the first analysis is not done yet; try again")
        return web.json_response({**answer(analysis, int(limit)), **_moment(analysis.measures)})

    async def published_seeds(self, _: web.Request) -> web.Response:
        """Return the list that the seeds topic has."""
        return await self._answer(b"{}", SeedQuestion, self._seeds)

    async def seeds(self, request: web.Request) -> web.Response:
        """Return the users that reach most distinct people together, of those that the question allows."""
        return await self._answer(await request.read(), SeedQuestion, self._seeds)

    async def diffuse(self, request: web.Request) -> web.Response:
        """Return how far a message from some users spreads, with its interval."""
        return await self._answer(await request.read(), DiffusionQuestion, self._diffuse)

    async def predict_share(self, request: web.Request) -> web.Response:
        """Return the probability that each user who is exposed to a post shares it within the horizon."""
        return await self._answer(await request.read(), ShareQuestion, self._predict, self._predictions)

    def _seeds(self, question: SeedQuestion, measures: Measures) -> dict[str, Any]:
        analysis = self._analyst.background.latest
        if analysis is None:
            raise NotReady("the first analysis is not done yet; try again")
        return questions.seeds(question, measures, analysis, self._analyst.shares_on)

    def _diffuse(self, question: DiffusionQuestion, measures: Measures) -> dict[str, Any]:
        return questions.diffuse(question, measures, self._analyst.background.latest)

    def _predict(self, question: ShareQuestion, measures: Measures) -> dict[str, Any]:
        served = self._analyst.next_actions
        if served is None:
            raise AnalystError(
                "there is no model of who acts next: `groundswell train-next` makes one, and "
                "GROUNDSWELL_ANALYST_NEXT_MODEL names it"
            )
        if served.latest is None:
            raise NotReady("the first index of posts is not made yet; try again")
        begin = perf_counter()
        answer = predict(question, served.artifact, served.latest, measures)
        self._analyst.metrics.predict_seconds.observe(perf_counter() - begin)
        return answer

    async def _answer(
        self,
        body: bytes,
        kind: type[Question],
        answer: Callable[[Question, Measures], dict[str, Any]],
        turn: asyncio.Semaphore | None = None,
    ) -> web.Response:
        """Decode a question and answer it on a thread, one at a time, so that passes go on."""
        measures = self._analyst.measures
        if measures is None:
            return _error(503, f"not ready: {self._analyst.detail}")
        try:
            question = msgspec.json.decode(body or b"{}", type=kind)
            # Predictions have a turn of their own: seeds and diffusion may take seconds.
            async with turn or self._one_at_a_time:
                return web.json_response(await asyncio.to_thread(answer, question, measures))
        except msgspec.DecodeError as error:
            return _error(400, one_line(error))
        except NotReady as error:
            return _error(503, str(error))
        except AnalystError as error:
            return _error(404, str(error))


def _of_analysis(analysis: Analysis | None, row: int) -> dict[str, Any]:
    """Return the results of the last round for a user."""
    if analysis is None or row >= len(analysis.labels):
        return {}
    label = int(analysis.labels[row])
    between = analysis.betweenness
    known = between is not None and not np.isnan(between.high[row])
    interval = [float(end[row]) for end in between[1:]] if between is not None and known else None
    return {
        "community": None if label < 0 else analysis.community_id(label),
        "bridge": float(analysis.bridge[row]),
        "closeness": float(analysis.closeness[row]),
        "betweenness": float(between.value[row]) if between is not None and known else None,
        "betweenness_interval": interval,
        **questions.quality_of(analysis, row),
        "adds_alone": coverage.expected(analysis.rates, np.array([row])),
    }


def _moment(measures: Measures) -> dict[str, Any]:
    return {"as_of": rfc3339(max(measures.as_of, 0)), "error_bound": measures.error_bound[0]}


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def application(settings: Settings, analyst: Analyst) -> web.Application:
    """Return the application of the analyst's port."""
    app = web.Application()
    Guard(settings.web_token.get_secret_value(), local=settings.web_is_local).add_to(app)
    Pages(analyst).add_to(app)
    return app


@asynccontextmanager
async def serving(settings: Settings, analyst: Analyst) -> AsyncIterator[None]:
    """Serve the analyst's port for the duration of the context."""
    runner = web.AppRunner(application(settings, analyst), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.web_host, settings.analyst_port).start()
        yield
    finally:
        await runner.cleanup()
