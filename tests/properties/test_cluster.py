"""Random histories over several shards: the same graph, embeddings and scores as one shard and as PyTorch Geometric."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.storage import row_layouts
from graphstate.types import CONTENT, CREATED, TYPES, USER, GraphSpec, Mutation, Snapshot, owner
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.network.pyg_reference import reference
from streams.shard.graph_view import graph_input, graph_spec
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Shard
from tests.support.examples import examples
from tests.support.figures import check_figures
from tests.support.graphs import create, share
from tests.support.strategies import RETAINED, histories, history, rearranged, splits

LARGEST_ERROR = 1e-5

ARTIFACTS = [
    untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=2, floor=1, target_mean=1.5, target_std=2), 1),
    untrained(ModelConfig(hidden=12, heads=3, head_hidden=4, window=0, floor=2, horizon_s=3_600), 2),
]


def spec_of(artifact: Artifact) -> GraphSpec:
    """Return the graph spec of an artifact."""
    return graph_spec(artifact.config, retention_s=0, lateness_s=86_400)


@contextmanager
def cluster(artifact: Artifact, spec: GraphSpec, count: int, folder: Path | None = None) -> Iterator[Cluster]:
    """Open shards, in a temporary folder unless one is given."""
    with tempfile.TemporaryDirectory(prefix="groundswell-") as own:
        home = folder or Path(own)
        shards = [
            Shard.open(home / str(shard), artifact, replace(spec, shards=count, shard=shard)) for shard in range(count)
        ]
        opened = Cluster(shards)
        try:
            yield opened
        finally:
            opened.close()


def check(twin: NaiveGraph, tried: Cluster) -> None:
    """Check that every owner's features, embeddings and scores are those of the twin's graph."""
    snapshot, config = twin.snapshot().canonical(), tried.shards[0].artifact.config
    hidden1, hidden2, score = reference(tried.shards[0].artifact.weights, config, graph_input(snapshot, config))
    for kind, names in enumerate(snapshot.ids):
        for row, name in enumerate(names):
            shard = tried.shards[owner(name, len(tried.shards))]
            table, engine = shard.graph.tables[kind], shard.engine
            at = table.index[name]
            assert np.array_equal(table.propagated[at], snapshot.propagated[kind][row]), (TYPES[kind], name)
            assert np.abs(engine.hidden1[kind][at] - hidden1[TYPES[kind]][row]).max() <= LARGEST_ERROR
            if kind == USER:
                assert np.array_equal(table.own[at], snapshot.own[row]), name
                assert shard.graph.as_of()[at] == snapshot.as_of[row]
                assert np.abs(engine.hidden2[at] - hidden2[row]).max() <= LARGEST_ERROR
                assert abs(engine.score[at] - score[row]) <= LARGEST_ERROR
    check_labels(snapshot, tried)
    check_figures(twin, [shard.graph for shard in tried.shards])
    assert tried.users == int(snapshot.live.sum())
    check_mirrors(tried)


def check_labels(snapshot: Snapshot, tried: Cluster) -> None:
    """Check that the owners of a content and of its creator have its labels."""
    creators = dict(zip(*snapshot.edges[CREATED].tolist(), strict=True))
    for content, name in enumerate(snapshot.ids[CONTENT]):
        creator = snapshot.ids[USER][creators[content]] if content in creators else None
        for node in {name, creator or name}:
            graph = tried.shards[owner(node, len(tried.shards))].graph
            row = graph.contents.index[name]
            label = graph.contents.labels[row]
            assert (graph.labels.ids[label] if label >= 0 else "") == snapshot.labels[content], name
            if label >= 0 and creator is not None:
                assert graph.users.ids[graph.contents.creator[row]] == creator
    for shard in tried.shards:
        texts = [text for text in shard.graph.labels.ids if text]
        assert sorted(texts) == sorted(set(texts))
        used = shard.graph.labels.uses[: len(shard.graph.labels)]
        assert [bool(uses) for uses in used] == [bool(text) for text in shard.graph.labels.ids]


def check_mirrors(tried: Cluster) -> None:
    """Check that RocksDB holds the owner's values of all mirrored nodes in windows, for the next restart."""
    for shard in tried.shards:
        stored = dict(shard.graph.store.rows("mirrors"))
        for kind, table in enumerate(shard.graph.tables):
            for row in shard.graph.mirrored_nodes.rows(kind).tolist():
                sender = tried.shards[table.owner(row)]
                there = sender.graph.tables[kind].index[table.ids[row]]
                features = sender.graph.tables[kind].propagated[there].tobytes() + shard.artifact.version.encode()
                assert (
                    stored.get(row_layouts.node(kind, row)) == features + sender.engine.hidden1[kind][there].tobytes()
                )


def play(artifact: Artifact, batches: list[list[Mutation]], count: int) -> tuple[list[str], bytes]:
    """Return the live users after some batches on a number of shards, and their scores as bytes."""
    with cluster(artifact, spec_of(artifact), count) as tried:
        for batch in batches:
            tried.feed(batch)
            tried.drain()
        names, reach, percentile, as_of = tried.scores()
        return names, reach.tobytes() + percentile.tobytes() + as_of.tobytes()


@pytest.mark.slow
@examples(20)
@given(data=st.data(), artifact=st.sampled_from(ARTIFACTS), log=histories(), count=st.sampled_from((2, 3, 8)))
def test_shards_are_the_reference(data: st.DataObject, artifact: Artifact, log: list[Mutation], count: int) -> None:
    """Once drained, every owner's values equal the reference, whatever was pending before."""
    twin, rng = NaiveGraph(spec_of(artifact)), random.Random(data.draw(st.integers(0, 1_000)))
    with cluster(artifact, spec_of(artifact), count) as tried:
        for batch in data.draw(splits(log)):
            twin.apply(batch)
            tried.feed(batch)
            for _ in range(rng.randrange(2 * count)):
                tried.round(rng.randrange(count))
            if rng.random() < 0.3:
                tried.drain()
                check(twin, tried)
        tried.drain()
        check(twin, tried)


@examples(15)
@given(data=st.data(), artifact=st.sampled_from(ARTIFACTS), log=histories(), count=st.sampled_from((1, 2, 3, 8)))
def test_any_number_of_shards_scores_alike(
    data: st.DataObject, artifact: Artifact, log: list[Mutation], count: int
) -> None:
    """Any number of shards, order, repetition and split gives the same scores, bit for bit."""
    other = data.draw(splits(data.draw(rearranged(log))))
    assert play(artifact, [log], 1) == play(artifact, other, count)


@pytest.mark.slow
@examples(15)
@given(spec=st.sampled_from(RETAINED), log=histories(), count=st.sampled_from((2, 3)))
def test_shards_evict_alike(spec: GraphSpec, log: list[Mutation], count: int) -> None:
    """With a retention, and facts delivered before the next event, shards keep what one shard keeps."""
    config = ModelConfig(
        hidden=4, heads=1, head_hidden=4, window=spec.window, floor=spec.floor, horizon_s=spec.horizon_s
    )
    twin = NaiveGraph(spec)
    with cluster(untrained(config, 1), spec, count) as tried:
        for mutation in log:
            twin.apply([mutation])
            tried.feed([mutation])
            tried.drain()
        check(twin, tried)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5])
def test_larger_history(count: int, tmp_path: Path) -> None:
    """A few thousand events with restarts, which lose pending halos and keep pending facts."""
    artifact, rng = ARTIFACTS[0], random.Random(count)
    log, twin = history(count + 30, 2_000, users=120, contents=150), NaiveGraph(spec_of(artifact))
    while log:
        size = rng.choice((20, 200, 600))
        batch, log = log[:size], log[size:]
        twin.apply(batch)
        with cluster(artifact, spec_of(artifact), count, tmp_path) as tried:
            tried.feed(batch)
            tried.drain()
            check(twin, tried)
            before = tried.scores()
        with cluster(artifact, spec_of(artifact), count, tmp_path) as tried:
            tried.drain()
            check(twin, tried)
            for one, other in zip(before, tried.scores(), strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("seed", "events", "users", "contents"), [(5, 400, 20, 40), (31, 500, 40, 20)])
def test_a_node_returns_to_a_window(seed: int, events: int, users: int, contents: int, tmp_path: Path) -> None:
    """Nodes leave windows and return while a halo of their owner is pending; RocksDB has the last values, too."""
    artifact, rng = ARTIFACTS[0], random.Random(seed)
    count = rng.choice((2, 3, 4))
    log = history(seed, events, users, contents)
    with cluster(artifact, spec_of(artifact), count, tmp_path) as tried:
        twin = NaiveGraph(spec_of(artifact))
        while log:
            size = rng.choice((1, 2, 5, 20))
            batch, log = log[:size], log[size:]
            twin.apply(batch)
            tried.feed(batch)
            for _ in range(rng.randrange(2 * count)):
                tried.round(rng.randrange(count))
        tried.drain()
        check(twin, tried)


def test_evicted_and_created_again_in_one_step() -> None:
    """A content that leaves and is created again within one step of its creator's shard begins without shares."""
    day, spec = 24 * 60, GraphSpec(floor=1, retention_s=10 * 86_400, lateness_s=2 * 86_400)
    # "x" is one shard's, both of its creators are another's.
    names = [f"user-{number}" for number in range(20)]
    elsewhere = [name for name in names if owner(name, 2) != owner("x", 2)]
    log = [create(0, elsewhere[0], "x"), *(share(1, name, "x") for name in names[:7])]
    log += [create(30 * day, elsewhere[1], "x"), *(share(30 * day + 1, name, "x") for name in names[:3])]
    twin = NaiveGraph(spec)
    twin.apply(log)
    config = ModelConfig(hidden=4, heads=1, head_hidden=4, window=spec.window, floor=1, horizon_s=spec.horizon_s)
    with cluster(untrained(config, 1), spec, 2) as tried:
        tried.feed(log[:8])
        tried.drain()
        tried.feed(log[8:])
        tried.drain()
        check(twin, tried)
