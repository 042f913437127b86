"""The description of an HTTP API: OpenAPI 3.1 at `/api/v1/openapi.json`, the list of endpoints at `/api/v1/`.

Both are made from the routes of the application: the summary of an endpoint is the docstring of its handler, so every
endpoint is listed. `DETAILS` adds parameters, statuses and the schema of the response.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

from aiohttp import web

Json = dict[str, Any]

ROOT = "/api/v1/"
DOCUMENT = f"{ROOT}openapi.json"

_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "number"}
_WHOLE: Json = {"type": "integer"}
_TRUE: Json = {"type": "boolean"}
_TIME: Json = {"type": "string", "format": "date-time"}


def _or_null(schema: Json) -> Json:
    return {**schema, "type": [schema["type"], "null"]}


def _object(*optional: str, **fields: Json) -> Json:
    """Return the schema of an object; a caller must accept fields that are not listed."""
    return {"type": "object", "properties": fields, "required": [name for name in fields if name not in optional]}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def _named(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_SCORE: Json = {
    "user": _TEXT,
    "model": _TEXT,
    "reach": _NUMBER,
    "percentile": _NUMBER,
    "calibrated": _TRUE,
    "as_of": _TIME,
}
_PLACE = _object(shard=_WHOLE, worker=_or_null(_TEXT), url=_or_null(_TEXT))
SCHEMAS: Json = {
    "Top": _object(
        top=_list(_object("rank_before", **_SCORE, change=_or_null(_NUMBER), rank_before=_or_null(_WHOLE))),
        users=_WHOLE, clock=_or_null(_TIME), model=_TEXT, calibrated=_TRUE,
    ),
    "User": _object("features", "analyst", **_SCORE, features={"type": "object", "additionalProperties": _NUMBER},
                    analyst=_TEXT),
    "Alerts": _object(model=_TEXT, alerts=_list(_object(
        alert=_TEXT, user=_TEXT, kind={"const": "emerging"}, as_of=_TIME, velocity=_NUMBER, level=_WHOLE, reach=_NUMBER,
        percentile=_NUMBER, new_sharers=_WHOLE, content=_or_null(_TEXT),
    ))),
    "Content": _object(content=_TEXT, user=_TEXT, created=_TIME, community=_or_null(_TEXT), topics=_list(_TEXT),
                       reply_to=_or_null(_TEXT), sharers=_WHOLE),
    "Answer": _object(query=_TEXT, kind=_TEXT, answer={"type": "object"}),
    "Live": _object(model=_TEXT),
    "History": _object(
        times=_list(_NUMBER), reach={"type": "object", "additionalProperties": _list(_or_null(_NUMBER))},
    ),
    "Cascade": _object(
        content=_TEXT, author=_or_null(_TEXT), created=_or_null(_TIME), topics=_list(_TEXT), shares=_WHOLE,
        growth=_object(times=_list(_NUMBER), shares=_list(_WHOLE)),
        newest=_list(_object(user=_TEXT, time=_TIME)),
    ),
    "Flow": _object(
        lag=_list(_object(topic=_TEXT, partition=_TEXT, records=_WHOLE)),
        watermark=_list(_object(topic=_TEXT, partition=_TEXT, behind_s=_NUMBER)),
        idle_partitions=_WHOLE, behind_clock_s=_NUMBER, late_shares=_WHOLE,
        dead_letters=_list(_object(topic=_TEXT, reason=_TEXT, messages=_WHOLE)),
        stages=_list(_object(stage=_TEXT, seconds=_NUMBER, runs=_WHOLE)),
        ingest=_list(_object(stage=_TEXT, seconds=_NUMBER, runs=_WHOLE)),
    ),
    "Endpoints": _object(endpoints=_list(_object(method=_TEXT, path=_TEXT, summary=_TEXT)), openapi=_TEXT),
    "Error": _object("owner", "pointer", "column", error=_TEXT, owner=_PLACE, pointer=_TEXT, column=_WHOLE),
}  # fmt: skip
_LIMIT: Json = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20},
}
_USERS: Json = {
    "name": "user", "in": "query", "schema": {"type": "array", "items": _TEXT, "maxItems": 50},
    "description": "Users, the parameter repeated; none: the first by reach.",
}  # fmt: skip
_EXPLAIN: Json = {
    "name": "explain", "in": "query", "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
    "description": "1: also the parts of the score.",
}  # fmt: skip
_ERRORS = {
    400: "A parameter is invalid.",
    404: "There is no such user or content, or a forgotten or deleted one.",
    409: "The artifact has another horizon.",
    421: "Another worker has the shard of this user or content: `owner` names it.",
    501: "Another process has the answer, and none is configured.",
    503: "Not ready, or busy; try again.",
}


class Details(NamedTuple):
    """What an endpoint has beside its path: query parameters, schemas of response and body, statuses of errors."""

    parameters: tuple[Json, ...] = ()
    schema: Json | None = None
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    body: Json | None = None


DETAILS = {
    "/api/v1/top": Details((_LIMIT,), _named("Top"), (400, 503)),
    "/api/v1/users/{id}": Details((_EXPLAIN,), _named("User"), (400, 404, 421, 503)),
    "/api/v1/contents/{id}": Details((), _named("Content"), (400, 404, 421, 503)),
    "/api/v1/query": Details(
        (),
        _named("Answer"),
        (400, 404, 409, 421, 501, 503),
        body=_object(query=_TEXT),
    ),
    "/api/v1/alerts": Details((_LIMIT,), _named("Alerts"), (400,)),
    "/api/v1/history": Details((_USERS,), _named("History"), (400, 503)),
    "/api/v1/contents/{id}/cascade": Details((), _named("Cascade"), (400, 404, 503)),
    "/api/v1/flow": Details(schema=_named("Flow")),
    "/api/v1/analyst/seeds": Details(errors=(503,)),
    "/api/v1/analyst/users/{id}": Details((), None, (400, 404, 503)),
    "/api/v1/live": Details(schema=_named("Live")),
    "/api/v1/stream": Details(schema={"type": "string"}, errors=(503,), media="text/event-stream"),
    ROOT: Details(schema=_named("Endpoints")),
}


class ApiDocument:
    """The two handlers.

    Args:
        title: the name of the API.
        details: what is known of its endpoints beside their handlers.
    """

    def __init__(self, title: str, details: dict[str, Details] | None = None) -> None:
        self._title, self._details = title, DETAILS if details is None else details

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application; routes that are added later are described, too."""
        app.router.add_get(ROOT, self.endpoints)
        app.router.add_get(DOCUMENT, self.document)

    async def endpoints(self, request: web.Request) -> web.Response:
        """Return the endpoints of this API."""
        listed = [{"method": method, "path": path, "summary": text} for method, path, text in routes(request.app)]
        return web.json_response({"endpoints": listed, "openapi": DOCUMENT})

    async def document(self, request: web.Request) -> web.Response:
        """Return the OpenAPI document of this API."""
        return web.json_response(self.described(request.app))

    def described(self, app: web.Application) -> Json:
        """Return the OpenAPI document of an application."""
        paths: Json = {}
        for method, path, text in routes(app):
            paths.setdefault(path, {})[method.lower()] = self._operation(path, text)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": self._title,
                "version": version("groundswell"),
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": paths,
            "components": {
                "schemas": SCHEMAS,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer", "description": "GROUNDSWELL_WEB_TOKEN, if it is set."}
                },
            },
            "security": [{}, {"token": []}],
        }

    def _operation(self, path: str, text: str) -> Json:
        details = self._details.get(path, Details())
        inside: list[Json] = [
            {"name": part[1:-1], "in": "path", "required": True, "schema": _TEXT}
            for part in path.split("/")
            if part.startswith("{")
        ]
        schema = details.schema or {"type": "object"}
        responses: Json = {"200": {"description": text, "content": {details.media: {"schema": schema}}}}
        for status in details.errors:
            content = {"application/json": {"schema": _named("Error")}}
            responses[str(status)] = {"description": _ERRORS[status], "content": content}
        operation: Json = {"summary": text, "responses": responses}
        if details.body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": details.body}}}
        parameters = [*inside, *details.parameters]
        return {**operation, "parameters": parameters} if parameters else operation


def routes(app: web.Application) -> Iterator[tuple[str, str, str]]:
    """Yield method, path and summary of every endpoint of the API."""
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if path.startswith(ROOT) and route.method != "HEAD":
            lines = (route.handler.__doc__ or "").strip().splitlines()
            yield route.method, path, lines[0].rstrip(".") if lines else ""
