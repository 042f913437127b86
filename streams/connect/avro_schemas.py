"""Avro schemas of the values of output topics, made from the types of the typed client."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from groundswell import values

VALUES: dict[str, type[msgspec.Struct]] = {
    "score": values.Score, "topic": values.TopicScore, "alert": values.Alert, "outcome": values.Outcome,
}  # fmt: skip
"""The type of each output topic, by its name in the registry of topics."""
NAMESPACE = "groundswell"
_TIME = {"type": "long", "logicalType": "timestamp-micros"}
_PRIMITIVES: dict[type, Any] = {
    msgspec.inspect.StrType: "string",
    msgspec.inspect.FloatType: "double",
    msgspec.inspect.IntType: "long",
    msgspec.inspect.LiteralType: "string",
    msgspec.inspect.NoneType: "null",
    msgspec.inspect.DateTimeType: _TIME,
}


def schema_of(value: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the Avro schema of a type: a record; times are microseconds, a value that may be missing is nullable."""
    described = msgspec.inspect.type_info(value)
    fields = [_field(field) for field in cast("msgspec.inspect.StructType", described).fields]
    return {"type": "record", "name": value.__name__, "namespace": NAMESPACE, "fields": fields}


def _field(field: msgspec.inspect.Field) -> dict[str, Any]:
    kind, about = field.type, ""
    while isinstance(kind, msgspec.inspect.Metadata):
        about = about or (kind.extra_json_schema or {}).get("description", "")
        kind = kind.type
    found: dict[str, Any] = {"name": field.encode_name, "type": _type(kind)}
    if about:
        found["doc"] = about
    if not field.required:
        found["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    elif isinstance(found["type"], list):
        found["default"] = None
    return found


def _type(kind: msgspec.inspect.Type) -> Any:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _type(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        # Null comes first, as it is the default.
        return sorted((_type(one) for one in kind.types), key=lambda one: one != "null")
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return {"type": "array", "items": _type(kind.item_type)}
    return _PRIMITIVES[type(kind)]
