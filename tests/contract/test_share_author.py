"""A share with `author` and `created` counts as a create of that content and a share, everywhere."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faust.types import TP

from graphstate.types import Kind, Mutation, owner
from model.artifact import Artifact
from streams.errors import BadEvent
from streams.kafka.consumer.poll_queue import INPUTS, Poll
from streams.kafka.topics import Topics
from streams.messages.events import all_from_row, from_row, mutations
from streams.messages.files import event_files
from streams.messages.packs.mutation_packs import unpack
from streams.offline.dataset import creation_times, effective_events
from streams.offline.replay import run
from streams.settings.settings import Settings
from streams.shard.graph_view import graph_spec
from streams.telemetry.metrics import Metrics
from streams.worker.processing.dead_letters import DeadLetters
from streams.worker.processing.ingest import Ingest
from streams.worker.processing.source_clock import SourceClock

NOW_S = 1_714_564_800
NOW_MS = NOW_S * 1000
SHARE: dict[str, Any] = {"type": "share", "time": NOW_S, "user": "ann", "content": "c1", "via": "bob"}
STATED = {**SHARE, "author": "zoe", "created": "2024-05-01T11:00:00Z"}
CREATE = Mutation(Kind.CREATE, (NOW_S - 3_600) * 10**6, "zoe", "c1")
ITSELF = Mutation(Kind.SHARE, NOW_S * 10**6, "ann", "c1", "bob")


def test_a_share_with_an_author_becomes_create_and_share() -> None:
    """From a message and from a row: the stated create, then the share, as if a create had been sent."""
    create = {"type": "create", "time": NOW_S - 3_600, "user": "zoe", "content": "c1"}
    assert mutations(json.dumps(create).encode(), "create", NOW_MS) == [CREATE]
    assert mutations(json.dumps(STATED).encode(), "share", NOW_MS) == [CREATE, ITSELF]
    assert mutations(json.dumps([SHARE, STATED]).encode(), "share", NOW_MS) == [ITSELF, CREATE, ITSELF]
    assert all_from_row(STATED) == [CREATE, ITSELF]
    assert from_row(STATED) == ITSELF
    assert all_from_row({**SHARE, "author": None, "created": None}) == [ITSELF]
    assert mutations(json.dumps({**SHARE, "author": None, "created": None}).encode(), "share", NOW_MS) == [ITSELF]


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"author": "zoe"}, "field", "a share with `author` and without `created`; give both or neither"),
        ({"created": NOW_S}, "field", "a share with `created` and without `author`; give both or neither"),
        ({"author": "", "created": NOW_S}, "id", "author"),
        ({"author": 1.5, "created": NOW_S}, "id", "author"),
        ({"author": "é" * 129, "created": NOW_S}, "id", "author is longer than 256 bytes"),
        ({"author": "zoe", "created": NOW_MS}, "time", f"created {NOW_MS} looks like milliseconds; give seconds"),
        ({"author": "zoe", "created": "2024-05-01"}, "time", 'created "2024-05-01" is a date'),
        ({"author": "zoe", "created": NOW_S + 2 * 86_400}, "time", "more than a day after"),
        ({"author": "zoe", "created": -1}, "time", "created -1 is before 1970"),
        ({"author": "zoe", "created": True}, "time", "created is a boolean"),
    ],
)
def test_invalid_authors_are_refused(fields: dict[str, Any], reason: str, text: str) -> None:
    """One field without the other, and invalid ids or times, as for every other field."""
    with pytest.raises(BadEvent) as caught:
        mutations(json.dumps({**SHARE, **fields}).encode(), "share", NOW_MS)
    assert caught.value.reason == reason
    assert text in str(caught.value)
    with pytest.raises(BadEvent) as row:
        from_row({**SHARE, **fields}, NOW_MS * 1000)
    assert row.value.reason == reason


def test_other_event_types_ignore_both_fields() -> None:
    """They are treated like unknown fields."""
    for event in ({"type": "unshare", "content": "c"}, {"type": "create", "content": "c"}):
        row = {**event, "time": 1, "user": "a", "author": 1.5}
        assert (
            len(mutations(json.dumps(row).encode(), "share" if event["type"] == "unshare" else "create", NOW_MS)) == 1
        )


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz", "e.parquet"])
def test_event_files_keep_both_fields(name: str, tmp_path: Path) -> None:
    """Each kind of file writes and reads the columns `author` and `created`; `until` applies to the share's time."""
    path = tmp_path / name
    later = {**STATED, "time": NOW_S + 60, "created": NOW_S - 60, "user": 7}
    assert event_files.write(path, [STATED, SHARE, later]) == 3
    found = list(event_files.mutations(path))
    assert found == [CREATE, ITSELF, ITSELF, *all_from_row({**later, "user": "7"})]
    assert list(event_files.mutations(path, until=NOW_S * 10**6)) == [CREATE, ITSELF, ITSELF]


def test_columns_of_other_types_are_read(tmp_path: Path) -> None:
    """Parquet with milliseconds without a time zone and dictionary-encoded ids."""
    path = tmp_path / "e.parquet"
    columns = {
        "type": ["share"],
        "time": pa.array([NOW_MS], pa.timestamp("ms")),
        "user": ["ann"],
        "content": ["c1"],
        "via": ["bob"],
        "author": pa.array(["zoe"]).dictionary_encode(),
        "created": pa.array([NOW_MS - 3_600_000], pa.timestamp("ms")),
    }
    pq.write_table(pa.table(columns), path)
    assert list(event_files.mutations(path)) == [CREATE, ITSELF]


def stream(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Follows and shares of 60 contents: with creates of their own, and with shares that state the creates."""
    rng = random.Random(seed)
    people = [f"u{i}" for i in range(40)]
    rows: list[dict[str, Any]] = [
        {"type": "follow", "time": NOW_S - 400_000 + i, "user": rng.choice(people), "target": rng.choice(people)}
        for i in range(200)
    ]
    creates = [
        {"type": "create", "time": NOW_S - rng.randrange(300_000), "user": rng.choice(people), "content": f"c{i}"}
        for i in range(60)
    ]
    shares: list[dict[str, Any]] = []
    for create in creates:
        for _ in range(rng.randrange(1, 20)):
            share = {"type": "share", "time": create["time"] + rng.randrange(400_000), "user": rng.choice(people)}
            shares.append({**share, "content": create["content"]})
    made = {create["content"]: create for create in creates}
    stated = [
        {**one, "author": made[one["content"]]["user"], "created": made[one["content"]]["time"]} for one in shares
    ]
    order = lambda row: row["time"]  # noqa: E731
    return sorted([*rows, *creates, *shares], key=order), sorted([*rows, *stated], key=order)


def scored(rows: Iterable[dict[str, Any]], folder: Path, shards: int) -> pa.Table:
    """The scores that replay writes for these rows."""
    artifact = Artifact.default()
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=7 * 86_400)
    run([one for row in rows for one in all_from_row(row)], artifact, spec, folder, shards=shards, batch=300)
    return pq.read_table(folder / "scores.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3])
def test_scores_equal_those_with_creates(shards: int, tmp_path: Path) -> None:
    """Bit for bit the scores of the same shares with separate creates: in order, and shuffled with repeats."""
    creates, stated = stream(5)
    assert not any(row["type"] == "create" for row in stated)
    expected = scored(creates, tmp_path / "a", shards)
    assert max(expected["reach"].to_pylist()) > 0
    assert scored(stated, tmp_path / "b", shards).equals(expected)
    mixed = stated * 2
    random.Random(7).shuffle(mixed)
    assert scored(mixed, tmp_path / "c", shards).equals(expected)
    without = [{name: value for name, value in row.items() if name not in ("author", "created")} for row in stated]
    assert not scored(without, tmp_path / "d", shards).equals(expected)


def test_contradicting_creates_are_resolved(tmp_path: Path) -> None:
    """The earliest create wins, at equal times the smaller user id, whichever event states it."""
    claims = [
        {**SHARE, "user": "s1", "author": "zoe", "created": NOW_S - 50},
        {**SHARE, "user": "s2", "author": "bea", "created": NOW_S - 90},
        {**SHARE, "user": "s3", "author": "amy", "created": NOW_S - 90},
        {"type": "create", "time": NOW_S - 60, "user": "max", "content": "c1"},
    ]
    won = [{**SHARE, "user": f"s{i}", "author": "amy", "created": NOW_S - 90} for i in (1, 2, 3)]
    seen = [{"type": "follow", "time": NOW_S - 95, "user": name, "target": name} for name in ("zoe", "bea", "max")]
    times = dict.fromkeys(("zoe", "bea", "max"), 0)
    tables = [
        scored(random.Random(i).sample([*claims, *seen], len(claims) + 3), tmp_path / str(i), 1) for i in range(4)
    ]
    assert all(table.equals(tables[0]) for table in tables)
    expected = scored([*won, *seen], tmp_path / "won", 1)
    columns = ["user", "reach"]
    got, wanted = (table.select(columns).to_pylist() for table in (tables[0], expected))
    assert [row for row in got if row["user"] not in times] == [row for row in wanted if row["user"] not in times]


def test_training_counts_a_post_once() -> None:
    """Fifty shares that state the same create are one post with fifty sharers."""
    rows = [{**STATED, "user": f"u{i}", "time": NOW_S + i} for i in range(50)]
    events = [one for row in rows for one in all_from_row(row, NOW_MS * 2000)]
    assert creation_times(events).tolist() == [CREATE.time]
    contents, shares = effective_events(events)
    assert contents == {"c1": (CREATE.time, "zoe")}
    assert len(shares) == 50


class Record:
    """A message on the share topic."""

    def __init__(self, topic: str, value: bytes) -> None:
        self.topic, self.value = topic, value
        self.partition, self.offset, self.timestamp = 0, 3, NOW_MS
        self.key, self.headers = None, []
        self.serialized_value_size = len(value)


def test_ingest_routes_create_and_share_and_counts_one(offline_settings: Settings) -> None:
    """The create goes to the owners of author and content, the share to its owner; the metrics count one share."""
    settings = offline_settings.model_copy(update={"shards": 3})
    topics, metrics = Topics(settings), Metrics()
    packs: dict[int, list[bytes]] = {}

    class Client:
        async def send(self, _topic: str, value: bytes, partition: int) -> asyncio.Future[object]:
            packs.setdefault(partition, []).append(value)
            done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            done.set_result(SimpleNamespace(offset=0))
            return done

    class Producer:
        client = Client()

    async def letter(*_about: Any) -> asyncio.Future[object]:
        raise AssertionError("no event is bad")

    async def ingest_poll() -> None:
        consumer: Any = SimpleNamespace(is_current=lambda _poll: True, complete_poll=lambda _poll: None)
        ingest = Ingest(topics, consumer, Producer(), DeadLetters(letter, metrics, 3), metrics, SourceClock(10, 0))  # type: ignore[arg-type]
        record = Record(topics.share.name, json.dumps(STATED).encode())
        poll = Poll(INPUTS, 1, 1)
        poll.add(TP(topics.share.name, 0), [record], 4)
        await ingest.handle(poll)

    asyncio.run(ingest_poll())
    got = {
        shard: [one for value in values for one in unpack(value).columns.mutations()] for shard, values in packs.items()
    }
    for mutation, names in ((CREATE, ("zoe", "c1")), (ITSELF, ("ann", "c1", "bob"))):
        assert {shard for shard, found in got.items() if mutation in found} == {owner(name, 3) for name in names}
    assert metrics.registry.get_sample_value("groundswell_events_total", {"type": "share", "outcome": "accepted"}) == 1
    assert (
        metrics.registry.get_sample_value("groundswell_events_total", {"type": "create", "outcome": "accepted"}) is None
    )
