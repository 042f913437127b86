"""Avro records by the schemas of a schema registry: those of a topic that is read, and those that are written.

The wire format is that of the serializers of a registry: a zero byte, four bytes with the id of the schema, the record
without a header. JSON and JSON Schema records are read, too, with and without the prefix.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import Request

import fastavro
import msgspec

from streams.connect.sources import decoded
from streams.errors import BadEvent, InputError, one_line
from streams.settings.direct_http import opener

MAGIC = b"\0"
PREFIX_BYTES = 5
TIMEOUT_S = 10.0
_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"
_SENT = "application/vnd.schemaregistry.v1+json"
_AVRO = "AVRO"


class Encoder:
    """Encodes records of one schema in the wire format.

    Args:
        number: id of the schema in the registry.
        schema: the parsed schema.
    """

    def __init__(self, number: int, schema: Any) -> None:
        self._prefix, self._schema = MAGIC + number.to_bytes(PREFIX_BYTES - 1), schema

    def __call__(self, record: dict[str, Any]) -> bytes:
        """Return the value of a message."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._schema, record)
        return self._prefix + out.getvalue()


def _message(error: HTTPError) -> str:
    """Return the message in a registry's response to a refused request."""
    try:
        return f": {json.loads(error.read())['message']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


class SchemaRegistry:
    """Decodes and encodes values; each schema is requested or registered once.

    Args:
        url: the address of the registry; user and password may stand before the host.

    Raises:
        InputError: it is no address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InputError("--registry: give an address such as http://registry:8081")
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        # Without redirects, which would send the login to another host.
        self._opener = opener(self._url)
        self._headers = {"Accept": _ACCEPT, "Content-Type": _SENT}
        if parts.username:
            login = base64.b64encode(f"{parts.username}:{parts.password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"
        self._schemas: dict[int, Any] = {}

    def decode(self, value: bytes) -> Any:
        """Return the JSON value of a message, or a BadEvent.

        Raises:
            InputError: the registry cannot be reached or refuses.
        """
        if not value.startswith(MAGIC) or len(value) <= PREFIX_BYTES:
            return decoded(value)
        number = int.from_bytes(value[1:PREFIX_BYTES])
        try:
            schema = self._schema(number)
            if schema is None:
                return decoded(value)
            record = fastavro.schemaless_reader(io.BytesIO(value[PREFIX_BYTES:]), schema, None)
        except BadEvent as bad:
            return bad
        except (EOFError, ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            return BadEvent("format", f"no Avro record of schema {number}: {one_line(error)}; was another schema used?")
        # Times, UUIDs and decimals become what JSON has for them.
        return msgspec.to_builtins(record)

    def register(self, subject: str, schema: dict[str, Any]) -> Encoder:
        """Register the schema of a subject, which may have it already.

        Raises:
            InputError: the registry cannot be reached or refuses, as where the schema breaks its compatibility rule.
        """
        body = json.dumps({"schema": json.dumps(schema)}).encode()
        try:
            answer = self._ask(f"/subjects/{quote(subject, safe='')}/versions", body)
        except HTTPError as error:
            raise InputError(f"the registry at {self._url} has no subjects; check --registry") from error
        return Encoder(int(answer["id"]), fastavro.parse_schema(schema))

    def _schema(self, number: int) -> Any:
        """Return the parsed schema of an id; None if its records are JSON."""
        if number not in self._schemas:
            try:
                answer = self._ask(f"/schemas/ids/{number}")
            except HTTPError as error:
                raise BadEvent(
                    "format", f"schema {number} is not in the registry; is it the registry of the topic's producer?"
                ) from error
            self._schemas[number] = self._parsed(number, answer)
        return self._schemas[number]

    def _parsed(self, number: int, answer: dict[str, Any]) -> Any:
        kind = answer.get("schemaType", _AVRO)
        if kind == "JSON":
            return None
        if kind != _AVRO:
            raise BadEvent("format", f"schema {number} is {kind}; Avro and JSON are read")
        named: dict[str, Any] = {}
        self._add_references(answer, named)
        return fastavro.parse_schema(json.loads(answer["schema"]), named)

    def _add_references(self, answer: dict[str, Any], named: dict[str, Any]) -> None:
        """Parse the schemas that a schema refers to, those that they refer to first."""
        for reference in answer.get("references", ()):
            path = f"/subjects/{quote(reference['subject'], safe='')}/versions/{reference['version']}"
            inner = self._ask(path)
            self._add_references(inner, named)
            if reference["name"] not in named:
                fastavro.parse_schema(json.loads(inner["schema"]), named)

    def _ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Return the response to a request; with a body it is a POST.

        Raises:
            HTTPError: there is no such schema.
            InputError: the registry cannot be reached or refuses.
        """
        try:
            request = Request(self._url + path, body, self._headers)  # noqa: S310 - its scheme is checked
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read())  # type: ignore[no-any-return]
        except HTTPError as error:
            with error:
                if error.code == 404:
                    raise
                raise InputError(
                    f"the registry at {self._url} answers {error.code}{_message(error)}; check --registry"
                ) from error
        except (OSError, ValueError) as error:
            raise InputError(f"no registry at {self._url} ({one_line(error)}); check --registry") from error
