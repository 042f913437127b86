"""The contract of the topics: valid by the meta-schemas, its examples by the code that reads and writes messages."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from docs import contract
from groundswell import values
from streams.errors import BadEvent
from streams.kafka.topics import Topics
from streams.messages import events
from streams.messages.headers import CloudEvents
from streams.messages.outputs import (
    ALERT_FIELDS,
    OUTCOME_FIELDS,
    SCORE_FIELDS,
    Alert,
    AlertOutcome,
    Score,
    score_messages,
)
from streams.settings.settings import Settings

SCHEMAS = Path(__file__).parent / "schemas"
INPUTS = ("follow", "share", "create")
NOW_MS = time.time_ns() // 1_000_000


def meta_schema(name: str) -> Any:
    """A meta-schema; NOTICE names its source."""
    return json.loads(gzip.decompress((SCHEMAS / name).read_bytes()))


def test_the_document_is_asyncapi() -> None:
    """The document is valid AsyncAPI 3.1, and one with a wrong action is not."""
    document = contract.asyncapi()
    validator = jsonschema.Draft7Validator(meta_schema("asyncapi-3.1.0.json.gz"))
    assert [error.message for error in validator.iter_errors(document)] == []
    document["operations"]["publish-score"]["action"] = "shout"
    assert not validator.is_valid(document)


def test_every_reference_leads_somewhere() -> None:
    """Every `$ref` of the document names a part of it."""
    document = contract.asyncapi()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for inner in value.values() for one in references(inner)]
        return [one for inner in value for one in references(inner)] if isinstance(value, list) else []

    listed = references(document)
    assert len(listed) > 30
    for reference in listed:
        place: Any = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_every_public_topic_is_described() -> None:
    """Every topic of the registry is in the document, apart from those that only workers read."""
    registry = Topics(Settings())
    internal = {registry.mutations.name, registry.halos.name, registry.models.name}
    assert contract.asyncapi()["channels"].keys() == {spec.name for spec in registry.all()} - internal


@pytest.mark.parametrize("name", sorted(contract.EXAMPLES))
def test_examples_fit_their_schemas(name: str) -> None:
    """Each example is valid by the JSON Schema of its topic, and by that type of the code."""
    schema = contract.schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for example in contract.EXAMPLES[name]:
        assert [error.message for error in validator.iter_errors(example)] == []
        assert not validator.is_valid({**example, "user": {}, "list": 3} if isinstance(example, dict) else [3])
        msgspec.json.decode(msgspec.json.encode(example), type=contract.payload(name))


@pytest.mark.parametrize("name", INPUTS)
def test_the_codec_accepts_what_the_schema_accepts(name: Any) -> None:
    """The examples pass the codec of their topic; without one of its fields an event is refused by both."""
    validator = jsonschema.Draft202012Validator(contract.schema(name))
    for example in contract.EXAMPLES[name]:
        assert events.mutations(json.dumps(example).encode(), name, NOW_MS)
        if isinstance(example, list):
            continue
        for field in example:
            cut = {key: value for key, value in example.items() if key != field}
            if (field, "author" in example) in {("author", True), ("created", True)}:
                continue  # both or neither: the codec is stricter than a schema can be
            try:
                accepted = bool(events.mutations(json.dumps(cut).encode(), name, NOW_MS))
            except BadEvent:
                accepted = False
            assert validator.is_valid(cut) is accepted, (example, field)


def test_what_is_published_fits_its_type() -> None:
    """The messages of scores, alerts and outcomes decode to the client's types, field by field."""
    headers = CloudEvents("x", "/x")
    time_us = 1_772_388_000_000_000
    columns = score_messages([Score("bo", 7.31, 96.4, time_us)], "0123456789ab", "0/1", headers)
    score = values.decode_score(columns.values[0])
    alert = Alert("a1", "bo", time_us, 2.98, 1, 7.31, 96.4, 26, None).to_message("0123456789ab", headers)
    outcome = AlertOutcome("a1", "bo", "expired", time_us, 1.0).to_message(headers)
    assert alert.value is not None
    assert outcome.value is not None
    assert (score.user, score.as_of.timestamp() * 1e6) == ("bo", time_us)
    assert values.decode_alert(alert.value).new_sharers == 26
    whole = Alert("a1", "bo", time_us, 2.98, 1, 7.31, 96.4, 26, "c", 90.5, ("ana", "cy"), ("owls",))
    read = values.decode_alert(whole.to_message("0123456789ab", headers).value or b"")
    assert (read.rising_s, read.sharers, read.topics) == whole[-3:]
    assert values.decode_outcome(outcome.value).outcome == "expired"
    for fields, type_ in ((SCORE_FIELDS, values.Score), (ALERT_FIELDS, values.Alert), (OUTCOME_FIELDS, values.Outcome)):
        assert fields == type_.__struct_fields__[: len(fields)]
        # What may be left out has a default.
        assert len(type_.__struct_fields__) - len(fields) <= len(type_.__struct_defaults__)
