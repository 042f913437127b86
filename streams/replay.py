"""Replay: event files through the same shard as production, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graphstate.twin import Twin
from graphstate.types import USER, GraphSpec, Mutation
from model.artifact import Artifact
from streams.graphview import graph_input
from streams.shard import Alert, Outcome, Shard

BATCH = 16_384
"""Mutations per step: on small dense graphs a large step costs little more than a small one."""

_TIME = pa.timestamp("us", tz="UTC")
SCORES = pa.schema([("user", pa.string()), ("reach", pa.float64()), ("percentile", pa.float64()), ("as_of", _TIME)])
ALERTS = pa.schema(
    [
        ("alert", pa.string()), ("user", pa.string()), ("as_of", _TIME), ("velocity", pa.float64()),
        ("level", pa.int64()), ("reach", pa.float64()), ("percentile", pa.float64()),
        ("new_sharers", pa.int64()), ("content", pa.string()),
    ]
)  # fmt: skip
"""The columns of `alerts.parquet`; times in microseconds."""


@dataclass
class Replayed:
    """What a replay found; seconds without start-up, published: scores that a topic would have carried."""

    events: int = 0
    expired: int = 0
    published: int = 0
    seconds: float = 0.0
    alerts: list[Alert] = field(default_factory=list)


def score_table(shard: Shard) -> pa.Table:
    """Every live user's score as `scores.parquet` holds it, by user."""
    users, reach, percentile, as_of = shard.scores()
    columns = [pa.array(users, pa.string()), pa.array(reach), pa.array(percentile), pa.array(as_of).cast(_TIME)]
    return pa.table(columns, schema=SCORES)


def alert_table(alerts: list[Alert]) -> pa.Table:
    """Alerts as `alerts.parquet` holds them, in the order they fired."""
    return pa.Table.from_pylist([vars(alert) for alert in alerts], schema=ALERTS)


def batches(mutations: Iterable[Mutation], size: int) -> Iterator[list[Mutation]]:
    """The mutations in lists of `size`."""
    left = iter(mutations)
    while batch := list(islice(left, size)):
        yield batch


def replay(
    shard: Shard, mutations: Iterable[Mutation], batch: int = BATCH, on_step: Callable[[Outcome], None] | None = None
) -> Replayed:
    """Feed a shard and commit every step; on_step sees each outcome."""
    result = Replayed()
    begin = perf_counter()
    for some in batches(mutations, batch):
        outcome = shard.step(some)
        result.events += len(some)
        shard.commit(result.events)
        result.expired += outcome.counts.get("expired", 0)
        result.published += len(outcome.scores)
        result.alerts += outcome.alerts
        if on_step is not None:
            on_step(outcome)
    result.seconds = perf_counter() - begin
    return result


def reference_error(shard: Shard, mutations: Iterable[Mutation], spec: GraphSpec) -> float:
    """The largest difference, over all embeddings and scores (mean log reach), from plain PyTorch Geometric
    on a graph that the naive twin derives from the same mutations.
    """
    from model.reference import reference

    twin = Twin(spec)
    twin.apply(list(mutations))
    snapshot = twin.snapshot()
    config = shard.artifact.config
    _, hidden, score = reference(shard.artifact.weights, config, graph_input(snapshot, config))
    index = shard.graph.ledger.users.index
    live = [row for row in range(len(snapshot.ids[USER])) if snapshot.live[row]]
    ours = [index.get(snapshot.ids[USER][row], -1) for row in live]
    if -1 in ours or len(ours) != shard.users:
        return float("inf")
    if not ours:
        return 0.0
    embedded = np.abs(hidden[live] - shard.engine.hidden2[ours]).max()
    return float(max(embedded, np.abs(score[live] - shard.engine.score[ours]).max()))


def run(
    mutations: Iterable[Mutation],
    artifact: Artifact,
    spec: GraphSpec,
    out: Path,
    *,
    batch: int = BATCH,
    with_reference: bool = False,
    on_step: Callable[[Outcome], None] | None = None,
) -> tuple[Replayed, int, float | None]:
    """Replay into `out`: `scores.parquet` and `alerts.parquet`; returns (what happened, users, reference error).

    With the reference all mutations are held in memory, as the naive twin needs them together.
    """
    if with_reference:
        mutations = list(mutations)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="groundswell-replay-") as folder:
        shard = Shard.open(Path(folder), artifact, spec)
        try:
            result = replay(shard, mutations, batch, on_step)
            pq.write_table(score_table(shard), out / "scores.parquet")
            pq.write_table(alert_table(result.alerts), out / "alerts.parquet")
            error = reference_error(shard, mutations, spec) if with_reference else None
            return result, shard.users, error
        finally:
            shard.close()
