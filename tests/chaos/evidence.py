"""Collects the results of a chaos run: from the workers' APIs, Kafka's topics, data folders and logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from graphstate.state import GraphState
from graphstate.types import GraphSpec, Mutation
from model.artifact import Artifact
from streams.kafka.topics import Topics
from streams.messages.packs.mutation_packs import unpack
from streams.messages.packs.topic_identity import source_partition
from streams.offline.replay import cluster, replay
from streams.settings.settings import Settings
from streams.shard.graph_view import graph_spec
from streams.worker.data_dir import state_folder
from tests.chaos.judge import NodeKey, Record, RunResult, Score, Truth, owner, records
from tests.chaos.member import Member
from tests.chaos.stream import USERS, Message
from tests.support import brokerlog
from tests.support.workers import read_all

LIMIT = 1_000
ERRORS = {"error", "critical"}
ERROR_PREFIX = "groundswell: "
"""Prefix of the error line with which a worker exits."""


def spec_of(artifact: Artifact) -> GraphSpec:
    """The graph's spec for workers without retention."""
    return graph_spec(artifact.config, retention_s=0, lateness_s=int(Settings.model_fields["lateness_s"].default))


def expected_result(mutations: list[Mutation], sent: list[Message]) -> Truth:
    """Compute the expected result: one shard, one process, no Kafka, each event once."""
    artifact = Artifact.default()
    with (
        TemporaryDirectory(prefix="groundswell-truth-") as folder,
        cluster(artifact, spec_of(artifact), Path(folder), 1) as alone,
    ):
        replay(alone, mutations)
        users, reach, percentile, as_of = alone.scores()
        values = zip(reach.tolist(), percentile.tolist(), as_of.tolist(), strict=True)
        scores = {user: Score(*value) for user, value in zip(users, values, strict=True)}
        nodes = records(alone.shards[0].graph.snapshot())
    return Truth(scores, nodes, {message.value for message in sent if message.bad}, len(sent))


def answers(members: Iterable[Member]) -> dict[str, list[Score]]:
    """Scores of every user by all running workers."""
    scores: dict[str, list[Score]] = {}
    assert USERS <= LIMIT
    for member in members:
        if not member.alive:
            continue
        status, body = member.get(f"/api/v1/top?limit={LIMIT}")
        assert status == 200, f"worker {member.number} answers {status}: {body!r}"
        for row in json.loads(body)["top"]:
            score = Score(row["reach"], row["percentile"], as_of_us(row["as_of"]))
            scores.setdefault(row["user"], []).append(score)
    return scores


def as_of_us(value: Any) -> int:
    """Convert an as-of time of the API to µs."""
    if isinstance(value, int):
        return value
    from datetime import datetime, timedelta

    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (datetime.fromisoformat(value) - epoch) // timedelta(microseconds=1)


def graphs(folders: Iterable[Path], shards: int) -> dict[int, dict[NodeKey, Record]]:
    """Graph per shard, from the worker with the highest position; the workers must have ended."""
    graphs_by_shard = {}
    every = list(folders)
    spec = spec_of(Artifact.default())
    for shard in range(shards):
        newest: tuple[int, dict[NodeKey, Record]] = (-1, {})
        for folder in every:
            path = state_folder(folder, shard)
            if not path.is_dir():
                continue
            state = GraphState.open(path, replace(spec, shards=shards, shard=shard), read_only=True)
            try:
                next_offset = int(state.meta.get(b"next", b"0"))
                if next_offset > newest[0]:
                    newest = next_offset, records(state.snapshot(), shards, shard)
            finally:
                state.close()
        graphs_by_shard[shard] = newest[1]
    return graphs_by_shard


@dataclass
class Outputs:
    """The score topic. published_ms: publication times per shard. repeated: scores equal to the one before."""

    last: dict[str, float | None] = field(default_factory=dict)
    published_ms: dict[int, list[int]] = field(default_factory=dict)
    scores: int = 0
    repeated: int = 0


def outputs(records_: Iterable[Any], shards: int) -> Outputs:
    """Summarize the records of the score topic."""
    summary = Outputs()
    before: dict[bytes, bytes | None] = {}
    for record in records_:
        summary.scores += 1
        summary.repeated += before.get(record.key, b"") == record.value
        before[record.key] = record.value
        summary.last[record.key.decode()] = None if record.value is None else json.loads(record.value)["reach"]
        summary.published_ms.setdefault(owner(record.key.decode(), shards), []).append(record.timestamp)
    return summary


class LiveResult(NamedTuple):
    """What must be read while workers run: when they stop, shards move and publish the deferred scores."""

    answers: dict[str, list[Score]]
    out: Outputs


def read_live(settings: Settings, members: Iterable[Member]) -> LiveResult:
    """Read scores and topic ends; all traffic must have ended."""
    return LiveResult(answers(members), outputs(read_all(settings, [Topics(settings).score.name]), settings.shards))


def collect(settings: Settings, members: list[Member], live: LiveResult, sent: list[Message]) -> tuple[RunResult, int]:
    """Collect everything else after the workers ended; (results, number of messages that ingest repeated)."""
    topics = Topics(settings)
    inputs = [spec.name for spec in topics.inputs.values()]
    bad = {message.value for message in sent if message.bad and not message.value.startswith(b"[")}
    arrived = {
        (f"{record.topic}:{record.partition}", record.offset)
        for record in read_all(settings, inputs)
        if record.value not in bad
    }
    taken = Counter[tuple[str, int]]()
    for record in read_all(settings, [topics.mutations.name]):
        for segment in unpack(record.value).segments:
            source = source_partition(segment.source)
            if source.rpartition(":")[0] in inputs:
                taken.update((source, offset) for offset in segment.offsets.tolist())
    dead = {record.value for record in read_all(settings, [topics.dlq(name).name for name in inputs])}
    states = graphs([member.settings.datadir for member in members], settings.shards)
    result = RunResult(live.answers, states, live.out.last, dead, arrived, set(taken))
    return result, taken.total() - len(taken)


def writes_after_handover(kafka: Path, topics: Topics, shards: int) -> list[str]:
    """Writes to a shard or an input partition after the next owner's first write."""

    def shard_of(record: Any) -> list[Hashable]:
        return [owner(record.key.decode(), shards)]

    def sources_of(record: Any) -> list[Hashable]:
        return [segment.source for segment in unpack(record.value).segments]

    problems = []
    for spec, writers_of in ((topics.score, shard_of), (topics.alert, shard_of), (topics.mutations, sources_of)):
        for partition in range(spec.partitions):
            late = brokerlog.late_writes(brokerlog.records(kafka, spec.name, partition), writers_of)
            if late:
                problems.append(f"{len(late)} records of {spec.name}:{partition} came after the next owner's first")
    return problems


# Figures


def recovery_s(kills: list[tuple[int, list[int]]], out: Outputs) -> list[float]:
    """Seconds from each kill until each shard of the killed worker published again."""
    seconds = []
    for killed_ms, shards in kills:
        for shard in shards:
            after = [at for at in out.published_ms.get(shard, ()) if at > killed_ms]
            seconds.append((min(after) - killed_ms) / 1_000 if after else float("inf"))
    return seconds


def stalls(members: Iterable[Member]) -> dict[float, float]:
    """Durations of rebalances: cumulative counts by upper bound (s), summed over all processes of all workers."""
    together = Counter[float]()
    for member in members:
        for life in member.stalls:
            together.update(life)
    return dict(together)


def error_lines(log: Path) -> Iterator[str]:
    """Log lines of level error; of a traceback its last line, without the error line of an expected exit."""
    inside = False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("Traceback", " ")) or not line:
            inside = inside or bool(line)
            continue
        if not line.startswith("{"):
            if inside or not line.startswith(ERROR_PREFIX):
                yield line
            inside = False
        elif json.loads(line).get("level") in ERRORS:
            yield line
