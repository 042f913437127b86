"""Replay: feed event files through the same shards as in production, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.storage.options import RocksDbBudget
from graphstate.types import USER, GraphSpec, Kind, Mutation, owner
from model.artifact import Artifact
from streams.messages.outputs import Alert, AlertOutcome
from streams.offline.share_report import ShareTally, tally
from streams.shard.alerts.alert_rule import AlertRule
from streams.shard.graph_view import graph_input
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Outcome, Shard
from streams.worker.data_dir import state_folder

BATCH = 16_384
"""Mutations per step; on small dense graphs a large step takes little longer than a small one."""

_SHARE, _LABELS = int(Kind.SHARE), int(Kind.LABELS)


@dataclass
class ReplayResult:
    """Result of a replay.

    Attributes:
        events: Number of events.
        expired: Number of events that were refused as too late.
        published: Number of scores that a worker would have published.
        seconds: Duration without start-up.
        alerts: All alerts, in the order in which they fired.
        outcomes: Outcomes of the alerts.
        stages: Seconds of all steps, by stage.
        carried: Messages and bytes between the shards (`Cluster.carried`).
        given_shares: Number of share events.
        shares: Outcomes of the shares.
    """

    events: int = 0
    expired: int = 0
    published: int = 0
    seconds: float = 0.0
    alerts: list[Alert] = field(default_factory=list)
    outcomes: list[AlertOutcome] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    given_shares: int = 0
    shares: ShareTally = field(default_factory=ShareTally)


def batches(mutations: Iterable[Mutation], size: int) -> Iterator[list[Mutation]]:
    """Yield the mutations in lists of `size`; the last one may be shorter."""
    remaining = iter(mutations)
    while batch := list(islice(remaining, size)):
        yield batch


@contextmanager
def cluster(
    artifact: Artifact,
    spec: GraphSpec,
    folder: Path,
    shards: int,
    *,
    read_only: bool = False,
    live_posts: int = 0,
    rule: AlertRule | None = None,
    delay_s: float = 0.0,
) -> Iterator[Cluster]:
    """Open a cluster, and close its shards at the end.

    Args:
        artifact: Artifact that the shards serve.
        spec: Specification of their graphs.
        folder: Folder of the states.
        shards: Number of shards.
        read_only: Do not write to the states.
        live_posts: Number of closed posts that each shard keeps for live figures; 0: none.
        rule: Alert rule; None for the default with the artifact's horizon as its window.
        delay_s: How far alerts wait for events that are not in order of time (s).
    """
    rule = rule or AlertRule(artifact.config.horizon_s)
    with ExitStack() as stack:
        opened: list[Shard] = []
        memory = RocksDbBudget()
        for shard in range(shards):
            own = replace(spec, shards=shards, shard=shard)
            path = state_folder(folder, shard)
            opened.append(
                Shard.open(path, artifact, own, rule=rule, memory=memory, read_only=read_only, live_posts=live_posts)
            )
            stack.callback(opened[-1].close)
        yield Cluster(opened, int(delay_s * 1_000_000))


def replay(
    cluster: Cluster,
    mutations: Iterable[Mutation],
    batch: int = BATCH,
    on_step: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Feed a cluster batch by batch, each until no shard has anything left to process.

    Args:
        cluster: Cluster to feed.
        mutations: Events, in any order.
        batch: Number of events per batch.
        on_step: Receives the number of events of each batch.
    """
    result = ReplayResult()

    def collect(outcome: Outcome) -> None:
        result.expired += outcome.counts.get("expired", 0)
        result.published += len(outcome.scores)
        result.alerts += outcome.alerts
        result.outcomes += outcome.alert_outcomes
        for stage, seconds in outcome.seconds.items():
            result.stages[stage] = result.stages.get(stage, 0.0) + seconds

    begin = perf_counter()
    for events in batches(mutations, batch):
        cluster.feed(events)
        cluster.drain(collect)
        # Labels are a part of their create.
        result.events += sum(mutation[0] != _LABELS for mutation in events)
        result.given_shares += sum(mutation[0] == _SHARE for mutation in events)
        if on_step is not None:
            on_step(len(events))
    cluster.end()
    cluster.drain(collect)
    result.seconds = perf_counter() - begin
    return result


def reference_error(cluster: Cluster, mutations: Iterable[Mutation], spec: GraphSpec) -> float:
    """Compare a cluster with plain PyTorch Geometric on the graph that the naive twin derives from the same mutations.

    Returns:
        The largest absolute difference over all embeddings and scores (mean log reach); infinite if the live users
        differ.
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
    largest = 0.0
    for number, shard in enumerate(cluster.shards):
        twin_rows = [row for row in live.tolist() if owner(names[row], count) == number]
        shard_rows = [shard.graph.users.index.get(names[row], -1) for row in twin_rows]
        if -1 in shard_rows:
            return float("inf")
        if shard_rows:
            embedding_error = float(np.abs(hidden[twin_rows] - shard.engine.hidden2[shard_rows]).max())
            score_error = float(np.abs(score[twin_rows] - shard.engine.score[shard_rows]).max())
            largest = max(largest, embedding_error, score_error)
    return largest


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
    rule: AlertRule | None = None,
    delay_s: float = 0.0,
) -> tuple[ReplayResult, int, float | None]:
    """Replay events and write `scores.parquet`, `alerts.parquet` and `outcomes.parquet`.

    Args:
        mutations: Events, in any order.
        artifact: Artifact that scores.
        spec: Specification of the graph; decides the retention.
        out: Folder of the two files, created if it does not exist.
        shards: Number of shards.
        batch: Number of events per batch.
        with_reference: Compare with PyTorch Geometric; all events are then held in memory for the naive twin.
        on_step: Receives the number of events of each batch.
        rule: Alert rule; None for the default.
        delay_s: As for `cluster`.
        worker_retention_s: If the replay has no retention, count the shares that this one would leave out; 0: do not.

    Returns:
        The result, the number of live users, and the error of `reference_error` (None without the reference).
    """
    from streams.messages.files.result_tables import alert_table, outcome_table, score_table, write_results

    if with_reference:
        mutations = list(mutations)
    out.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="groundswell-replay-") as folder,
        cluster(artifact, spec, Path(folder), shards, rule=rule, delay_s=delay_s) as opened,
    ):
        for shard in opened.shards:
            shard.graph.shares.old = set()
        result = replay(opened, mutations, batch, on_step)
        result.shares = tally(opened, result.given_shares, worker_retention_s)
        result.carried = dict(opened.carried)
        tables = score_table(*opened.scores()), alert_table(result.alerts), outcome_table(result.outcomes)
        write_results(out, *tables)
        error = reference_error(opened, mutations, spec) if with_reference else None
        return result, opened.users, error
