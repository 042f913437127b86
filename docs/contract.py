"""The contract of the topics, made from the registry and the types that read and write messages.

    asyncapi.json        AsyncAPI 3.1: topics, messages, keys, headers, examples
    TOPIC.schema.json    JSON Schema of the value of one topic

`docs/generate.py` writes the files to docs/contract; tests/contract/test_contract.py validates them.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import msgspec

from groundswell import values
from streams.kafka.topics import Topics, TopicSpec
from streams.messages import analysis_outputs, events
from streams.messages.headers import ERRORS
from streams.settings.settings import Settings

Json = dict[str, Any]

_NAMES = {"follow": "FollowEvents", "share": "ShareEvents", "create": "CreateEvents"}
_OUTPUTS: dict[str, tuple[Any, str]] = {
    "score": (values.Score, "user"),
    "topic": (values.TopicScore, "topic, U+001F, user"),
    "alert": (values.Alert, "user"),
    "outcome": (values.Outcome, "user"),
    "centrality": (analysis_outputs.Centrality, "user"),
    "community": (analysis_outputs.Community, "user"),
    "seeds": (analysis_outputs.Seeds, "list"),
}
_COMPACTED = "compact"
_ALERT = "00bff2f559f231488a338389"
_MODEL = "0123456789ab"
_AS_OF = "2026-03-01T18:00:00.000000Z"
_SCORED = {"user": "bo", "reach": 7.31, "percentile": 96.4, "as_of": _AS_OF, "model": _MODEL}
EXAMPLES: dict[str, list[Any]] = {
    "follow": [
        {"type": "follow", "time": "2026-03-01T12:00:00Z", "user": "ana", "target": "bo"},
        {"type": "unfollow", "time": 1772366460, "user": "ana", "target": "bo"},
        {"type": "join", "time": 1772366460.5, "user": "ana", "community": "birds"},
        {"type": "leave", "time": 1772366470, "user": "ana", "community": "birds"},
        {"type": "forget", "time": 1772366480, "user": "ana"},
    ],
    "share": [
        {"type": "share", "time": 1772366460, "user": "ana", "content": "post-1", "via": "bo"},
        {"type": "share", "time": 1772366460, "user": 7, "content": 12, "author": 5, "created": "2026-03-01T11:00:00Z"},
        [
            {"type": "share", "time": 1772366460, "user": "ana", "content": "post-1"},
            {"type": "unshare", "time": 1772366461, "user": "ana", "content": "post-1"},
        ],
    ],
    "create": [
        {"type": "create", "time": 1772366400.25, "user": "bo", "content": "post-1", "reply_to": "post-0",
         "community": "birds", "topics": ["owls"]},
        {"type": "delete", "time": 1772366500, "user": "bo", "content": "post-1"},
    ],
    "score": [_SCORED],
    "topic": [
        {"topic": "owls", "user": "bo", "reach": 11.2, "percentile": 97.8, "as_of": _AS_OF, "model": _MODEL,
         "posts": 7, "sharers": 96}
    ],
    "alert": [
        {"alert": _ALERT, "user": "bo", "kind": "emerging", "as_of": _AS_OF, "velocity": 2.98, "level": 1,
         "reach": 7.31, "percentile": 96.4, "new_sharers": 26, "content": "post-1", "model": _MODEL},
        {"alert": _ALERT, "user": "bo", "kind": "emerging", "as_of": _AS_OF, "velocity": 2.98, "level": 0,
         "reach": 7.31, "percentile": 96.4, "new_sharers": 26, "content": None, "model": _MODEL},
    ],
    "outcome": [{"alert": _ALERT, "user": "bo", "outcome": "confirmed", "as_of": _AS_OF, "lead_s": 43200.0}],
    "centrality": [
        {"user": "bo", "pagerank": 0.0004, "core": 7, "followers": 120, "following": 80, "as_of": _AS_OF,
         "error_bound": 1e-6}
    ],
    "community": [{"user": "bo", "community": "c17", "bridge": 0.25, "as_of": _AS_OF}],
    "seeds": [{"list": "reach", "seeds": ["bo", "ana"], "expected_reach": 812.5, "as_of": _AS_OF}],
}  # fmt: skip
"""Values of messages by topic."""


def payload(name: str) -> Any:
    """Return the type of the values of a topic, given by its name in the registry."""
    if name in _NAMES:
        return events.TOPIC_TYPES[name] | list[events.TOPIC_TYPES[name]]  # type: ignore[index]
    return _OUTPUTS[name][0]


def registry() -> dict[str, TopicSpec]:
    """Return the public topics by their names in the registry."""
    topics = Topics(Settings())
    return {name: getattr(topics, name) for name in (*_NAMES, *_OUTPUTS)}


def schema(name: str) -> Json:
    """Return the JSON Schema of the values of a topic."""
    spec = registry()[name]
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": spec.name, "description": spec.about}
    return {**about, **_plain(msgspec.json.schema(payload(name)))}


def _plain(value: Any) -> Any:
    """Leave out `discriminator`, which is OpenAPI's: AsyncAPI's is another, and `type` has one value in each event."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if name != "discriminator"}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def asyncapi() -> Json:
    """Return the AsyncAPI document."""
    specs = registry()
    references, schemas = msgspec.json.schema_components(
        [payload(name) for name in specs], ref_template="#/components/schemas/{name}"
    )
    channels: Json = {}
    messages: Json = {}
    operations: Json = {}
    for (name, spec), reference in zip(specs.items(), references, strict=True):
        message = _NAMES.get(name) or _OUTPUTS[name][0].__name__
        key, is_input = ("user", True) if name in _NAMES else (_OUTPUTS[name][1], False)
        messages[message] = _message(name, spec, _plain(reference), key, is_input=is_input)
        channels[spec.name] = _channel(spec, message)
        operations[f"{'read' if is_input else 'publish'}-{name}"] = _operation(spec.name, message, is_input=is_input)
        if is_input:
            letters = Topics(Settings()).dlq(spec)
            channels[letters.name] = _channel(letters, "DeadLetter")
            operations[f"publish-dead-letters-of-{name}"] = _operation(letters.name, "DeadLetter", is_input=False)
    messages["DeadLetter"] = _dead_letter()
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Groundswell",
            "version": version("groundswell"),
            "description": "Social influence, scored while it happens: events in, scores and alerts out. Topic names "
            "carry the prefix of `GROUNDSWELL_PREFIX` if one is set.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": {"host": "localhost:9092", "protocol": "kafka", "description": "GROUNDSWELL_BROKER"}},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": _plain(schemas)},
    }


def _channel(spec: TopicSpec, message: str) -> Json:
    policy = spec.config.get("cleanup.policy")
    configuration: Json = {"cleanup.policy": [policy]} if policy else {}
    if "retention.ms" in spec.config:
        configuration["retention.ms"] = int(spec.config["retention.ms"])
    binding: Json = {"topic": spec.name, "bindingVersion": "0.5.0"}
    if configuration:
        binding["topicConfiguration"] = configuration
    return {
        "address": spec.name,
        "description": spec.about,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"kafka": binding},
    }


def _operation(channel: str, message: str, *, is_input: bool) -> Json:
    reference = f"#/channels/{channel}"
    return {
        "action": "receive" if is_input else "send",
        "channel": {"$ref": reference},
        "messages": [{"$ref": f"{reference}/messages/{message}"}],
    }


def _message(name: str, spec: TopicSpec, reference: Json, key: str, *, is_input: bool) -> Json:
    message: Json = {
        "name": spec.name,
        "summary": spec.about,
        "contentType": "application/json",
        "payload": reference,
        "examples": [{"payload": value} for value in EXAMPLES[name] if isinstance(value, dict)],
    }
    if is_input:
        return message
    texts = ("ce_id", "ce_type", "ce_source", "ce_time", "ce_specversion", "content-type")
    message["headers"] = {"type": "object", "properties": {name: {"type": "string"} for name in texts}}
    message["bindings"] = {
        "kafka": {"key": {"type": "string", "description": f"The {key}."}, "bindingVersion": "0.5.0"}
    }
    if spec.config.get("cleanup.policy") == _COMPACTED:
        message["description"] = f"A message without a value: the {key if key in ('user', 'list') else 'pair'} is gone."
    return message


def _dead_letter() -> Json:
    names = [ERRORS + name for name in ("topic", "partition", "offset", "exception", "message")]
    return {
        "name": "dead letter",
        "summary": "A message that holds an invalid event: key, value and headers as they came, and the error.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names},
        "payload": {"description": "The bytes of the refused message."},
    }


def files() -> dict[str, str]:
    """Return the text of every file of docs/contract by its name."""
    documents = {"asyncapi.json": asyncapi()}
    documents |= {f"{spec.name}.schema.json": schema(name) for name, spec in registry().items()}
    return {name: json.dumps(document, indent=2, ensure_ascii=False) + "\n" for name, document in documents.items()}
