"""Avro records by a registry: a server of the registry protocol, and records in the format of its serializers."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import fastavro
import pytest

from streams.connect.registry import SchemaRegistry
from streams.errors import BadEvent, InputError

PERSON = {"type": "record", "name": "Person", "namespace": "app", "fields": [{"name": "id", "type": "long"}]}
REPOST: dict[str, Any] = {
    "type": "record", "name": "Repost", "namespace": "app", "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "by", "type": "app.Person"},
        {"name": "post", "type": ["null", "string"], "default": None},
    ],
}  # fmt: skip
RECORD = {
    "id": UUID(int=7), "at": datetime(2026, 3, 1, 12, tzinfo=UTC), "by": {"id": 17}, "post": "p1",
}  # fmt: skip
LOGIN = base64.b64encode(b"me:secret").decode()


class Handler(BaseHTTPRequestHandler):
    """Answers as a schema registry does; the login is required."""

    requests: list[str]

    def do_GET(self) -> None:
        """Answer one request."""
        self.requests.append(self.path)
        references = [{"name": "app.Person", "subject": "app/person", "version": 2}]
        answers: dict[str, Any] = {
            "/schemas/ids/9": {"schema": json.dumps(REPOST), "references": references},
            "/subjects/app%2Fperson/versions/2": {
                "subject": "app/person", "version": 2, "id": 8, "schema": json.dumps(PERSON),
            },
            "/schemas/ids/10": {"schemaType": "PROTOBUF", "schema": "message A {}"},
            "/schemas/ids/11": {"schemaType": "JSON", "schema": "{}"},
        }  # fmt: skip
        missing = {"error_code": 40403, "message": "Schema not found"}
        status, answer = (200, answers[self.path]) if self.path in answers else (404, missing)
        if self.headers["Authorization"] != f"Basic {LOGIN}":
            status, answer = 401, {"error_code": 401, "message": "Unauthorized"}
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        """Write no log."""


@pytest.fixture
def address() -> Iterator[str]:
    """The host and port of a registry."""
    Handler.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def wire(number: int, body: bytes) -> bytes:
    """A value in the format of the registry's serializers."""
    return b"\0" + number.to_bytes(4) + body


def avro(record: dict[str, Any]) -> bytes:
    """A record without a header."""
    named: dict[str, Any] = {}
    fastavro.parse_schema(PERSON, named)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(REPOST, named), record)
    return out.getvalue()


def test_records_become_json_values(address: str) -> None:
    """A record with a reference, a time, a UUID and a union is read; each schema is requested once."""
    registry = SchemaRegistry(f"http://me:secret@{address}/")
    for post in ("p1", None):
        assert registry.decode(wire(9, avro({**RECORD, "post": post}))) == {
            "id": str(UUID(int=7)), "at": "2026-03-01T12:00:00Z", "by": {"id": 17}, "post": post,
        }  # fmt: skip
    assert Handler.requests == ["/schemas/ids/9", "/subjects/app%2Fperson/versions/2"]
    assert registry.decode(b'{"a": 1}') == registry.decode(wire(11, b'{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (wire(12, b"x"), "schema 12 is not in the registry; is it"),
        (wire(10, b"x"), "schema 10 is PROTOBUF; Avro and JSON are read"),
        (wire(9, b"\x02"), "no Avro record of schema 9: .*was another schema used"),
        (b"{", "not JSON"),
    ],
)
def test_values_that_cannot_be_read(address: str, value: bytes, problem: str) -> None:
    """Each is one bad record with its remedy."""
    bad = SchemaRegistry(f"http://me:secret@{address}").decode(value)
    assert isinstance(bad, BadEvent)
    with pytest.raises(BadEvent, match=problem):
        raise bad


def test_a_registry_that_refuses_or_is_not_there(address: str) -> None:
    """The error names the registry without the login."""
    with pytest.raises(
        InputError, match=f"^the registry at http://{address} answers 401: Unauthorized; check --registry$"
    ):
        SchemaRegistry(f"http://me:wrong@{address}").decode(wire(9, b"x"))
    with pytest.raises(InputError, match=r"^no registry at http://127.0.0.1:9 "):
        SchemaRegistry("http://me:secret@127.0.0.1:9").decode(wire(9, b"x"))
    for url in ("registry:8081", "ftp://registry", ""):
        with pytest.raises(InputError, match="give an address such as"):
            SchemaRegistry(url)
