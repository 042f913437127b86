"""Replay: event files through the same shard as production, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow.parquet as pq

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.storage.options import RocksDbBudget
from graphstate.types import USER, GraphSpec, Kind, Mutation, owner
from model.artifact import Artifact
from streams.messages.files.result_tables import alert_table, score_table
from streams.messages.outputs import Alert
from streams.offline.share_report import ShareTally, tally
from streams.shard.graph_view import graph_input
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Outcome, Shard
from streams.worker.data_dir import state_folder

BATCH = 16_384
"""Mutations per step: on small dense graphs a large step costs little more than a small one."""

_SHARE = int(Kind.SHARE)


@dataclass
class Replayed:
    """What a replay found; seconds without start-up, published: scores that a topic would have carried.

    stages: seconds of all steps by stage. carried: what shards sent each other (`Cluster.carried`). shares: what became
    of the given_shares.
    """

    events: int = 0
    expired: int = 0
    published: int = 0
    seconds: float = 0.0
    alerts: list[Alert] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    given_shares: int = 0
    shares: ShareTally = field(default_factory=ShareTally)


def batches(mutations: Iterable[Mutation], size: int) -> Iterator[list[Mutation]]:
    """The mutations in lists of `size`."""
    left = iter(mutations)
    while batch := list(islice(left, size)):
        yield batch


@contextmanager
def cluster(
    artifact: Artifact, spec: GraphSpec, folder: Path, shards: int, *, read_only: bool = False
) -> Iterator[Cluster]:
    """A cluster of so many shards with their states in a folder, closed at the end."""
    with ExitStack() as stack:
        opened: list[Shard] = []
        memory = RocksDbBudget()
        for shard in range(shards):
            own = replace(spec, shards=shards, shard=shard)
            opened.append(Shard.open(state_folder(folder, shard), artifact, own, memory=memory, read_only=read_only))
            stack.callback(opened[-1].close)
        yield Cluster(opened)


def replay(
    cluster: Cluster,
    mutations: Iterable[Mutation],
    batch: int = BATCH,
    on_step: Callable[[int], None] | None = None,
) -> Replayed:
    """Feed a cluster batch by batch until it has nothing more to say; on_step is told how many events each had."""
    result = Replayed()

    def see(outcome: Outcome) -> None:
        result.expired += outcome.counts.get("expired", 0)
        result.published += len(outcome.scores)
        result.alerts += outcome.alerts
        for stage, seconds in outcome.seconds.items():
            result.stages[stage] = result.stages.get(stage, 0.0) + seconds

    begin = perf_counter()
    for some in batches(mutations, batch):
        cluster.feed(some)
        cluster.drain(see)
        result.events += len(some)
        result.given_shares += sum(mutation[0] == _SHARE for mutation in some)
        if on_step is not None:
            on_step(len(some))
    result.seconds = perf_counter() - begin
    return result


def reference_error(cluster: Cluster, mutations: Iterable[Mutation], spec: GraphSpec) -> float:
    """The largest difference, over all embeddings and scores (mean log reach), from plain PyTorch Geometric
    on a graph that the naive twin derives from the same mutations.
    """
    from model.network.pyg_reference import reference

    twin = NaiveGraph(spec)
    twin.apply(list(mutations))
    snapshot = twin.snapshot()
    artifact, count = cluster.shards[0].artifact, len(cluster.shards)
    _, hidden, score = reference(artifact.weights, artifact.config, graph_input(snapshot, artifact.config))
    live = np.flatnonzero(snapshot.live)
    if len(live) != cluster.users:
        return float("inf")
    names = snapshot.ids[USER]
    worst = 0.0
    for number, shard in enumerate(cluster.shards):
        theirs = [row for row in live.tolist() if owner(names[row], count) == number]
        ours = [shard.graph.users.index.get(names[row], -1) for row in theirs]
        if -1 in ours:
            return float("inf")
        if ours:
            embedded = float(np.abs(hidden[theirs] - shard.engine.hidden2[ours]).max())
            worst = max(worst, embedded, float(np.abs(score[theirs] - shard.engine.score[ours]).max()))
    return worst


def run(  # noqa: PLR0913 - the options of `replay`
    mutations: Iterable[Mutation],
    artifact: Artifact,
    spec: GraphSpec,
    out: Path,
    *,
    shards: int = 1,
    batch: int = BATCH,
    with_reference: bool = False,
    on_step: Callable[[int], None] | None = None,
    worker_retention_s: int = 0,
) -> tuple[Replayed, int, float | None]:
    """Replay into `out`: `scores.parquet` and `alerts.parquet`; returns (what happened, users, reference error).

    worker_retention_s: if everything is kept, count the shares that this retention would leave out (0: do not).
    on_step is told how many events each batch had. With the reference all mutations are held in memory, as the
    naive twin needs them together.
    """
    if with_reference:
        mutations = list(mutations)
    out.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="groundswell-replay-") as folder,
        cluster(artifact, spec, Path(folder), shards) as opened,
    ):
        for shard in opened.shards:
            shard.graph.shares.old = set()
        result = replay(opened, mutations, batch, on_step)
        result.shares = tally(opened, result.given_shares, worker_retention_s)
        result.carried = dict(opened.carried)
        pq.write_table(score_table(*opened.scores()), out / "scores.parquet")
        pq.write_table(alert_table(result.alerts), out / "alerts.parquet")
        error = reference_error(opened, mutations, spec) if with_reference else None
        return result, opened.users, error
