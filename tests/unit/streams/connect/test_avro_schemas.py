"""Avro schemas of outputs: valid, and written and read values are equal."""

from __future__ import annotations

import io

import fastavro
import msgspec
import pytest

from docs.contract import EXAMPLES
from streams.connect.avro_schemas import VALUES, schema_of


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_the_same_after_writing_and_reading(name: str) -> None:
    """Every field is in the schema with its type; times keep microseconds."""
    schema = fastavro.parse_schema(schema_of(VALUES[name]))
    for example in EXAMPLES[name]:
        value = msgspec.convert(example, VALUES[name])
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, msgspec.structs.asdict(value))
        out.seek(0)
        assert msgspec.convert(fastavro.schemaless_reader(out, schema, None), VALUES[name]) == value


def test_what_may_be_missing_has_a_default() -> None:
    """So that readers of a later schema can read values of an earlier one."""
    fields = {field["name"]: field for field in schema_of(VALUES["alert"])["fields"]}
    assert fields["content"]["type"] == ["null", "string"]
    assert fields["as_of"]["type"] == {"type": "long", "logicalType": "timestamp-micros"}
    assert [fields[name]["default"] for name in ("content", "rising_s", "sharers", "topics")] == [None, 0.0, [], []]
    assert "default" not in fields["user"]
    assert fields["reach"]["doc"].startswith("Distinct people")
