"""`groundswell tail`: print scores, also by topic, alerts, outcomes, or what the analyst publishes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.errors import BrokerError, GroundswellError, Right, one_line
from streams.messages.alert_text import phrases
from streams.messages.escaping import safe, safe_json
from streams.messages.outputs import SEPARATOR
from streams.settings.connection import kafka_arguments
from streams.telemetry import console

if TYPE_CHECKING:
    from streams.kafka.topics import TopicSpec
    from streams.settings.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Print an output topic.")

FromBeginning = Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest message that Kafka has.")]
Limit = Annotated[int, typer.Option(min=0, help="Stop after this number of messages; 0: at Ctrl-C.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print each message's value as JSON, one per line.")]

POLL_MS = 500
_WITH_REACH = {"score", "topic", "alert"}


@app.command()
def scores(from_beginning: FromBeginning = False, limit: Limit = 0, as_json: AsJson = False) -> None:
    """Print scores as they are published."""
    _follow("score", from_beginning, limit, as_json)


@app.command()
def topics(from_beginning: FromBeginning = False, limit: Limit = 0, as_json: AsJson = False) -> None:
    """Print scores by user and topic as they are published."""
    _follow("topic", from_beginning, limit, as_json)


@app.command()
def alerts(from_beginning: FromBeginning = False, limit: Limit = 0, as_json: AsJson = False) -> None:
    """Print alerts as they are published."""
    _follow("alert", from_beginning, limit, as_json)


@app.command()
def outcomes(from_beginning: FromBeginning = False, limit: Limit = 0, as_json: AsJson = False) -> None:
    """Print what became of alerts as it is published."""
    _follow("outcome", from_beginning, limit, as_json)


@app.command()
def centrality(from_beginning: FromBeginning = False, limit: Limit = 0, as_json: AsJson = False) -> None:
    """Print centralities of the analyst as they are published."""
    _follow("centrality", from_beginning, limit, as_json)


@app.command()
def communities(from_beginning: FromBeginning = False, limit: Limit = 0, as_json: AsJson = False) -> None:
    """Print communities and bridge scores of the analyst as they are published."""
    _follow("community", from_beginning, limit, as_json)


@app.command()
def seeds(from_beginning: FromBeginning = False, limit: Limit = 0, as_json: AsJson = False) -> None:
    """Print lists of seeds of the analyst as they are published."""
    _follow("seeds", from_beginning, limit, as_json)


def _follow(name: str, from_beginning: bool, limit: int, as_json: bool) -> None:
    from streams.kafka import topics
    from streams.kafka.access import rights
    from streams.settings.settings import Settings

    settings = Settings.load()
    spec = getattr(topics.Topics(settings), name)
    with topics.admin(settings) as client:
        topics.check(client, [spec])
        rights.require(client, [Right("read", spec.name)])
    shown = 0
    noted = as_json or name not in _WITH_REACH
    try:
        for key, value in messages(settings, spec, from_beginning=from_beginning):
            if not noted and value is not None:
                noted = True
                console.note_calibration([{"calibrated": is_calibrated(settings, json.loads(value).get("model", ""))}])
            typer.echo(line(name, key, value, as_json=as_json))
            shown += 1
            if shown == limit:
                return
    except KeyboardInterrupt:
        return


def messages(settings: Settings, spec: TopicSpec, *, from_beginning: bool) -> Iterator[tuple[str, bytes | None]]:
    """Yield key and value of every message of a topic, without end; commits no offset and joins no group."""
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaError

    from streams.kafka.access import rights
    from streams.kafka.consumer.fetch_errors import decoding

    try:
        consumer = KafkaConsumer(**kafka_arguments(settings), group_id=None, isolation_level="read_committed")
        try:
            partitions = [
                TopicPartition(spec.name, number) for number in sorted(consumer.partitions_for_topic(spec.name) or ())
            ]
            consumer.assign(partitions)
            (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)(*partitions)
            while True:
                with decoding():
                    polled = consumer.poll(timeout_ms=POLL_MS)
                for records in polled.values():
                    yield from ((record.key.decode(), record.value) for record in records)
        finally:
            consumer.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings, Right("read", spec.name))
        raise refusal or BrokerError(
            f"{spec.name} cannot be read ({one_line(error)}); run `groundswell doctor`"
        ) from error


def is_calibrated(settings: Settings, version: str) -> bool | None:
    """Return whether the models topic has a calibration of an artifact; None if it cannot be read."""
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaError

    from streams.kafka.log_io import read_partitions
    from streams.kafka.topics import Topics
    from streams.worker.rollout.models_topic import map_key

    part = TopicPartition(Topics(settings).models.name, 0)
    try:
        consumer = KafkaConsumer(**kafka_arguments(settings), group_id=None)
        try:
            end = consumer.end_offsets([part])[part]
            ranges = {part: (consumer.beginning_offsets([part])[part], end)}
            maps = {
                record.key: record.value
                for records in read_partitions(consumer, ranges)
                for record in records
                if record.key == map_key(version).encode()
            }
        finally:
            consumer.close()
    except (KafkaError, GroundswellError):
        return None
    return any(value is not None for value in maps.values())


def line(name: str, key: str, value: bytes | None, *, as_json: bool) -> str:
    """Format one message.

    Args:
        name: of the topic in the registry, such as `score`.
        key: the message's key: a user, topic and user, or the name of a list of seeds.
        value: the message's value; None for a tombstone.
        as_json: return the value as it is.
    """
    if value is None:
        if name == "topic":
            topic, _, user = key.partition(SEPARATOR)
            gone = json.dumps({"topic": topic, "user": user, "gone": True}, ensure_ascii=False, separators=(",", ":"))
            return safe_json(gone) if as_json else f"{safe(user)}  no post on {safe(topic)} any more"
        tombstone = json.dumps({"user": key, "forgotten": True}, ensure_ascii=False, separators=(",", ":"))
        return safe_json(tombstone) if as_json else f"{safe(key)}  forgotten"
    if as_json:
        return safe_json(value.decode())
    fields: dict[str, Any] = json.loads(value)
    if name in _OF_ANALYST:
        return f"{fields['as_of'][:19]}  {_OF_ANALYST[name](fields)}"
    if name == "outcome":
        lead = f"{fields['lead_s'] / 3_600:.1f} h after the alert"
        return f"{fields['as_of'][:19]}  {fields['outcome']:9}  {safe(fields['user'])}  {lead}"
    score = f"reach {console.people(fields['reach']):>8}  percentile {fields['percentile']:5.1f}"
    if name == "score":
        return f"{fields['as_of'][:19]}  {score}  {safe(fields['user'])}"
    if name == "topic":
        counts = f"posts {fields['posts']:4}  sharers {fields['sharers']:5}"
        return f"{fields['as_of'][:19]}  {score}  {counts}  {safe(fields['topic'])}  {safe(fields['user'])}"
    growth = f"{fields['new_sharers']} new sharers, {fields['level']} shares before"
    return f"{fields['as_of'][:19]}  {score}  {safe(fields['user'])}  {', '.join([growth, *phrases(fields, safe)])}"


def _centrality(fields: dict[str, Any]) -> str:
    counts = f"core {fields['core']:4}  followers {fields['followers']:6}  following {fields['following']:6}"
    return f"pagerank {fields['pagerank']:.2e}  {counts}  {safe(fields['user'])}"


def _community(fields: dict[str, Any]) -> str:
    return f"community {fields['community']:8}  bridge {fields['bridge']:.2f}  {safe(fields['user'])}"


def _seeds(fields: dict[str, Any]) -> str:
    guarantee = f", at least {fields['guarantee']:.2f} of the best possible" if "guarantee" in fields else ""
    users = " ".join(safe(user) for user in fields["seeds"])
    return f"list {fields['list']}  {fields['expected_reach']:.1f} distinct people{guarantee}  {users}"


_OF_ANALYST: dict[str, Callable[[dict[str, Any]], str]] = {
    "centrality": _centrality,
    "community": _community,
    "seeds": _seeds,
}
