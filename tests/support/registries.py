"""A server with the protocol of a schema registry: subjects with versions, schemas by id."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TYPE = "application/vnd.schemaregistry.v1+json"


class Registry:
    """What a registry holds.

    Attributes:
        schemas: Schemas as text; the id of one is its place, from 1 on.
        subjects: Ids of the versions of each subject.
    """

    def __init__(self) -> None:
        self.schemas: list[str] = []
        self.subjects: dict[str, list[int]] = {}

    def register(self, subject: str, text: str) -> int:
        """Return the id of a schema; equal schemas have one id, and a subject has each once."""
        canonical = json.dumps(json.loads(text), sort_keys=True)
        if canonical not in self.schemas:
            self.schemas.append(canonical)
        number = self.schemas.index(canonical) + 1
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Return status and value of the response to a request."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match (method, *parts):
            case ("POST", "subjects", subject, "versions"):
                try:
                    return 200, {"id": self.register(subject, json.loads(body)["schema"])}
                except (ValueError, KeyError):
                    return 422, {"error_code": 42201, "message": "Invalid schema"}
            case ("GET", "schemas", "ids", number) if 0 < int(number) <= len(self.schemas):
                return 200, {"schema": self.schemas[int(number) - 1]}
        return 404, {"error_code": 40403, "message": "Schema not found"}


@contextmanager
def serving(registry: Registry) -> Iterator[str]:
    """Serve a registry; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer a request."""
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            accepted = self.command == "GET" or self.headers["Content-Type"] == TYPE
            status, value = registry.answer(self.command, self.path, body) if accepted else (415, {"message": "type"})
            self.send_response(status)
            self.send_header("Content-Type", TYPE)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def do_POST(self) -> None:
            """Answer a request with a body."""
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
