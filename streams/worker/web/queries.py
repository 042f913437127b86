"""`POST /api/v1/query`: answers a query of the one-line language with what this worker serves.

Nothing is computed here. What the analyst computes is asked from the analyst, if the settings name it; who will share a
content is asked from this worker's own endpoint.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

from streams.errors import GroundswellError, InputError, one_line
from streams.query.errors import QueryError
from streams.query.language import parse
from streams.query.questions import (
    Compare,
    Explain,
    PredictReach,
    PredictShare,
    Question,
    Rank,
    Show,
    Vocabulary,
)
from streams.shard.user_reads import MEASURES
from streams.worker.web.state import LiveState, NotReady

PATH = "/api/v1/query"
SHARE = "/api/v1/predict/share"
ASK_S = 10.0
"""Deadline of a request to the analyst or to this worker."""
OF_ANALYST = ("pagerank", "interaction_pagerank", "core", "following")
"""Measures of the analyst that a worker does not have."""
KINDS: dict[type, str] = {
    PredictReach: "reach", PredictShare: "share", Rank: "rank", Compare: "compare", Explain: "explain", Show: "show",
}  # fmt: skip


class Refusal(GroundswellError):
    """A question that has no answer here.

    Attributes:
        status: The HTTP status.
        more: Further fields of the response.
    """

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.more = status, more


class Queries:
    """The handler.

    Args:
        state: What the worker serves.
    """

    def __init__(self, state: LiveState) -> None:
        self._state = state

    def add_to(self, app: web.Application) -> None:
        """Add the route to an application."""
        app.router.add_post(PATH, self.query)

    async def query(self, request: web.Request) -> web.Response:
        """Answer a query of the one-line language: `{"query": "RANK TOP 5 users BY growth"}`."""
        try:
            text = _text(await request.read())
            question = parse(text, Vocabulary(MEASURES, OF_ANALYST, tuple(self._state.users.tiers.bounds)))
            answer = await self._answer(question, request)
        except QueryError as error:
            return _error(400, error, pointer=error.pointer, column=error.column)
        except InputError as error:
            return _error(400, error)
        except NotReady as error:
            return _error(503, error)
        except Refusal as error:
            return _error(error.status, error, **error.more)
        kind = question.what if isinstance(question, Show) else KINDS[type(question)]
        return web.json_response({"query": text, "kind": kind, "answer": answer})

    async def _answer(self, question: Question, request: web.Request) -> dict[str, Any]:
        state = self._state
        match question:
            case PredictReach():
                return await self._reach(question)
            case PredictShare():
                return await self._share(question, request)
            case Rank(by=by) if by in OF_ANALYST:
                return await self._rank_of_analyst(question, request)
            case Rank():
                return await state.ranked(question.limit, question.tier, question.by, question.topic)
            case Compare(a=a, b=b):
                return await self._compare(a, b)
            case Explain(user=user):
                return await self._found(user, await state.explain(user))
            case Show(what="user"):
                return await self._found(question.node, await state.user(question.node))
            case Show(what="content"):
                return await self._found(question.node, await state.content(question.node), "content")
            case Show(what="alerts"):
                return {"alerts": state.feed.alerts(question.limit), "model": state.model}
            case Show(what="live"):
                return state.live_figures()
            case Show(what="seeds"):
                return await self._of_analyst("/api/v1/seeds", "seeds are", request)
        path = f"/api/v1/users/{quote(question.node, safe='')}"
        return await self._of_analyst(path, "centralities are", request)

    async def _found(self, node: str, answer: dict[str, Any] | None, kind: str = "user") -> dict[str, Any]:
        """Return an answer about a node; refuse if there is none here, with the worker that has its shard."""
        if answer is not None:
            return answer
        owner = await self._state.owner_elsewhere(node)
        if owner is None:
            raise Refusal(404, f"there is no {kind} {node!r}, or it was deleted or forgotten")
        place = owner["url"] or owner["worker"] or "no worker at the moment; try again"
        raise Refusal(421, f"shard {owner['shard']} of {kind} {node!r} is with {place}: ask there", owner=owner)

    async def _reach(self, question: PredictReach) -> dict[str, Any]:
        user = await self._found(question.user, await self._state.user(question.user))
        horizon_s = await self._state.horizon_s()
        if question.within_s not in (None, horizon_s):
            raise Refusal(
                409,
                f"the artifact in use predicts reach within {_span(horizon_s)}, not {_span(question.within_s or 0)}: "
                "leave IN out, or use an artifact that was trained with that horizon",
            )
        names = ("user", "reach", "percentile", "calibrated", "as_of", "model")
        answer = {name: user[name] for name in names} | {"horizon_s": horizon_s}
        if not question.topic:
            return answer
        on_topic = await self._state.on_topic(question.user, question.topic)
        if on_topic is None:
            raise Refusal(
                404,
                f"{question.user!r} has no post on topic {question.topic!r}: leave ON TOPIC out for the reach on any",
            )
        return answer | on_topic

    async def _share(self, question: PredictShare, request: web.Request) -> dict[str, Any]:
        served = (route.resource.canonical for route in request.app.router.routes() if route.resource is not None)
        if SHARE not in served:
            raise Refusal(
                501,
                "this worker has no artifact that predicts who shares next, so PREDICT share has no answer; "
                "PREDICT reach has one",
            )
        host, port = (request.transport.get_extra_info("sockname") if request.transport else ("127.0.0.1", 0))[:2]
        own = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        body = {"content": question.content, "users": list(question.users)}
        answer = await _ask("POST", own + SHARE, request, body)
        horizon_s = answer.get("horizon_s")
        if question.within_s is not None and horizon_s is not None and question.within_s != horizon_s:
            raise Refusal(
                409,
                f"the artifact predicts shares within {_span(int(horizon_s))}, not {_span(question.within_s)}: "
                "leave IN out",
            )
        return answer

    async def _rank_of_analyst(self, question: Rank, request: web.Request) -> dict[str, Any]:
        if question.topic:
            raise Refusal(
                400,
                f"{question.by} is the analyst's, which holds no topics: leave topic out, or rank by one of "
                f"{', '.join(MEASURES)}",
            )
        query: dict[str, Any] = {"by": question.by, "limit": question.limit}
        if question.tier:
            least, below = self._state.users.tiers.bounds[question.tier]
            query |= {"followers": least, "followers_below": below}
        return await self._of_analyst(f"/api/v1/top?{urlencode(query)}", f"{question.by} is", request)

    async def _compare(self, a: str, b: str) -> dict[str, Any]:
        answer = await self._state.compare(a, b)
        if answer is not None:
            return answer
        for user in (a, b):
            await self._found(user, await self._state.user(user))
        raise Refusal(404, "one of them is no user here, or was forgotten")

    async def _of_analyst(self, path: str, what: str, request: web.Request) -> dict[str, Any]:
        address = self._state.analyst_url.rstrip("/")
        if not address:
            raise Refusal(
                501,
                f"{what} computed by the analyst, and no analyst is configured: start `groundswell analyst` and set "
                "GROUNDSWELL_ANALYST_URL",
            )
        return await _ask("GET", address + path, request)


async def _ask(method: str, address: str, request: web.Request, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the answer of another endpoint, asked with the credentials of a request.

    Raises:
        Refusal: it does not answer, or refuses.
    """
    credentials = request.headers.get("Authorization")
    headers = {"Authorization": credentials} if credentials else {}
    timeout = aiohttp.ClientTimeout(total=ASK_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, address, json=body, allow_redirects=False) as response,
        ):
            answer: dict[str, Any] = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = one_line(error)
        raise Refusal(503, f"{address.partition('?')[0]} does not answer ({why}); is it running?") from error
    if response.status != 200:
        text = answer.pop("error", f"status {response.status}")
        raise Refusal(response.status, str(text), **answer)
    return answer


def _text(body: bytes) -> str:
    """Return the query in a body.

    Raises:
        InputError: the body is none.
    """
    try:
        text = json.loads(body)["query"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise InputError('the body must be JSON with a text, such as {"query": "RANK TOP 5 users BY growth"}')
    return text


def _span(seconds: int) -> str:
    """Return a number of seconds in the largest whole unit."""
    for unit, size in (("day", 86_400), ("hour", 3_600)):
        if seconds % size == 0:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds:,} seconds"


def _error(status: int, error: Exception, **more: Any) -> web.Response:
    return web.json_response({"error": one_line(error), **more}, status=status)
