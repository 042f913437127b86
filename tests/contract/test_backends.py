"""Every backend of the engine keeps one contract: exact, a row's bits independent of its batch, healed where off.

The torch backend runs on the CPU here; where there is a GPU also there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import TYPES, USER, Mutation, owner
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.engine.cpu import Backend, MakeBackend
from model.engine.device_sample import SampleGraph
from model.engine.device_selection import compute_all
from model.network.pyg_reference import reference
from model.types import Int64s
from streams.shard.graph_view import graph_input, graph_spec
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Shard
from tests.support.engines import BACKENDS, one_thread, peaked
from tests.support.strategies import history

LARGEST_ERROR = 1e-5
every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Use one thread, which is fastest for small batches."""
    with one_thread():
        yield


SMALL = ModelConfig(hidden=12, heads=3, head_hidden=4, window=2, floor=1, target_mean=1.5, target_std=2)
ARTIFACTS = {
    "window 2": untrained(SMALL, 1),
    "all neighbours": untrained(replace(SMALL, window=0), 2),
    "window 16": Artifact.default(),
    "peaked, window 2": peaked(untrained(SMALL, 3)),
    "peaked, all neighbours": peaked(untrained(replace(SMALL, window=0), 4)),
    "peaked, window 16": peaked(Artifact.default()),
    "odd sizes, window 100": untrained(replace(SMALL, hidden=15, heads=3, head_hidden=7, window=100), 5),
}
every_artifact = pytest.mark.parametrize("artifact", ARTIFACTS.values(), ids=ARTIFACTS)


@contextmanager
def cluster(artifact: Artifact, backend: MakeBackend, folder: Path, count: int = 1) -> Iterator[Cluster]:
    """Open several shards of one graph."""
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=86_400)
    specs = [replace(spec, shards=count, shard=shard) for shard in range(count)]
    opened = Cluster([Shard.open(folder / str(one.shard), artifact, one, backend=backend) for one in specs])
    try:
        yield opened
    finally:
        opened.close()


def error(artifact: Artifact, twin: NaiveGraph, tried: Cluster) -> float:
    """Return the largest difference of any embedding or score, at its owner, from the reference on the twin's graph."""
    snapshot = twin.snapshot().canonical()
    hidden1, hidden2, score = reference(artifact.weights, artifact.config, graph_input(snapshot, artifact.config))
    worst = 0.0
    for kind, names in enumerate(snapshot.ids):
        for number, shard in enumerate(tried.shards):
            mine = [row for row, name in enumerate(names) if owner(name, len(tried.shards)) == number]
            at = [shard.graph.tables[kind].index[names[row]] for row in mine]
            pairs = [(hidden1[TYPES[kind]][mine], shard.engine.hidden1[kind][at])]
            if kind == USER:
                pairs += [(hidden2[mine], shard.engine.hidden2[at]), (score[mine], shard.engine.score[at])]
            worst = max(worst, *(float(np.abs(one - other).max(initial=0)) for one, other in pairs))
    return worst


def batches(log: list[Mutation], seed: int) -> Iterator[list[Mutation]]:
    """A log in micro-batches of random sizes."""
    rng, at = random.Random(seed), 0
    while at < len(log):
        size = rng.choice((1, 7, 60, 200))
        yield log[at : at + size]
        at += size


@every_backend
@every_artifact
def test_every_batch_is_the_reference(artifact: Artifact, backend: MakeBackend, tmp_path: Path) -> None:
    """Follows, unfollows, shares, deletes, forgets, changed features: after each micro-batch within 1e-5."""
    twin = NaiveGraph(graph_spec(artifact.config, retention_s=0, lateness_s=86_400))
    with cluster(artifact, backend, tmp_path) as tried:
        for batch in batches(history(7, 700, users=60, contents=80), 1):
            twin.apply(batch)
            tried.shards[0].step(batch)
            tried.shards[0].commit()
            assert error(artifact, twin, tried) <= LARGEST_ERROR


@every_backend
@pytest.mark.parametrize("name", ["window 2", "peaked, all neighbours"])
def test_mirrors_are_the_reference(name: str, backend: MakeBackend, tmp_path: Path) -> None:
    """Three shards that mirror each other's nodes equal one pass over the whole graph."""
    artifact = ARTIFACTS[name]
    twin = NaiveGraph(graph_spec(artifact.config, retention_s=0, lateness_s=86_400))
    with cluster(artifact, backend, tmp_path, 3) as tried:
        for batch in batches(history(8, 600, users=60, contents=80), 2):
            twin.apply(batch)
            tried.feed(batch)
            tried.drain()
            assert error(artifact, twin, tried) <= LARGEST_ERROR


@every_backend
@pytest.mark.parametrize("name", ["window 16", "all neighbours"])
def test_scores_do_not_depend_on_batches_nor_shards(name: str, backend: MakeBackend, tmp_path: Path) -> None:
    """At once, in small micro-batches, on three shards, and after a restart: the same bits."""
    artifact, log, found = ARTIFACTS[name], history(9, 400), []
    ways = {"once": (1, [log]), "small": (1, list(batches(log, 3))), "three": (3, list(batches(log, 4)))}
    for way, (count, parts) in ways.items():
        with cluster(artifact, backend, tmp_path / way, count) as tried:
            for part in parts:
                tried.feed(part)
                tried.drain()
            found.append([np.asarray(column).tobytes() for column in tried.scores()[1:3]])
    with cluster(artifact, backend, tmp_path / "small") as tried:
        found.append([np.asarray(column).tobytes() for column in tried.scores()[1:3]])
    assert all(other == found[0] for other in found)


def bits(engine: Backend) -> list[bytes]:
    """Return all outputs of an engine."""
    return [rows[:].tobytes() for rows in (*engine.hidden1, engine.hidden2, engine.score)]


def parts(rows: Int64s, size: int) -> list[Int64s]:
    """Split rows into pieces."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


@every_backend
@pytest.mark.parametrize("window", [0, 16])
@pytest.mark.parametrize("sizes", [(1, 10), (333, 1_000)], ids=str)
def test_a_row_has_the_same_bits_in_any_batch(window: int, sizes: tuple[int, int], backend: MakeBackend) -> None:
    """Recomputing rows one by one, by ten or by a thousand reports no change and changes no bit."""
    config = ModelConfig(window=window)
    graph = SampleGraph(config, 1_000, mean=20 if window else 12)
    engine = compute_all(backend(config, untrained(config, 1).weights), graph)
    before = bits(engine)
    for size in sizes:
        for kind, rows in enumerate(graph.all_rows()):
            # One by one is slow, so only a part is checked.
            for some in parts(graph.random.permutation(rows)[: size * 100], size):
                asked = [some if other == kind else some[:0] for other in range(len(TYPES))]
                engine.load_features(graph, asked)
                assert sum(map(len, engine.layer1(graph, asked))) == 0
                if kind == USER:
                    assert len(engine.layer2(graph, some)) == 0
                    engine.head(graph, some)
    assert bits(engine) == before


@every_backend
def test_only_what_changed_is_returned_and_wrong_state_is_mended(backend: MakeBackend) -> None:
    """After changes of windows and features, exactly the rows with other bits are returned."""
    config = ModelConfig(hidden=8, heads=2, head_hidden=8, window=4)
    graph = SampleGraph(config, 400, mean=3)
    engine, rng = compute_all(backend(config, untrained(config, 1).weights), graph), np.random.default_rng(2)
    rows = np.sort(rng.choice(400, 40, replace=False))
    before = engine.hidden1[USER][:400].copy()
    graph.rewire(USER, rows[:20])
    graph.refeature(USER, rows[20:])
    none = rows[:0]
    engine.load_features(graph, [rows, none, none])
    changed = engine.layer1(graph, graph.all_rows())[USER]
    np.testing.assert_array_equal(changed, np.flatnonzero((engine.hidden1[USER][:400] != before).any(1)))
    assert 0 < len(changed) < 400
    engine.layer2(graph, graph.all_rows()[USER])
    kept = bits(engine)
    hidden = engine.hidden1[USER]
    hidden[rows[0]] = np.full(8, 3, np.float32)
    assert engine.layer1(graph, [rows, none, none])[USER].tolist() == [rows[0]]
    assert bits(engine) == kept


@every_backend
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_what_is_held_back_is_what_moved_less_than_the_tolerance(part: float, backend: MakeBackend) -> None:
    """Rows beyond the tolerance take their new bits, others keep the old ones; layer 2 reads the result."""
    config = ModelConfig(hidden=8, heads=2, head_hidden=8, window=4)
    weights = untrained(config, 1).weights
    graph = SampleGraph(config, 400, mean=3)
    exact, loose, told = (compute_all(backend(config, weights), graph) for _ in range(3))
    rows, none = np.arange(0, 400, 9), np.zeros(0, np.int64)
    before = [hidden[: graph.rows(kind)].copy() for kind, hidden in enumerate(exact.hidden1)]
    graph.refeature(USER, rows)
    for engine in (exact, loose):
        engine.load_features(graph, [rows, none, none])
    exact.layer1(graph, graph.all_rows())
    moves = [np.abs(exact.hidden1[kind][: len(was)] - was).max(1) for kind, was in enumerate(before)]
    moved = np.concatenate(moves)
    tolerance = float(np.quantile(moved[moved > 0], part))
    # Of what lies on the edge each backend may think in its own way.
    assert np.count_nonzero(np.abs(moved - tolerance) < 1e-5) < 5
    changed = loose.layer1(graph, graph.all_rows(), tolerance)
    for kind, move in enumerate(moves):
        far, sure = np.isin(np.arange(len(move)), changed[kind]), np.abs(move - tolerance) >= 1e-5
        np.testing.assert_array_equal(far[sure], (move > tolerance)[sure])
        kept = loose.hidden1[kind][: len(move)]
        new = exact.hidden1[kind][: len(move)]
        assert kept.tobytes() == np.where(far[:, None], new, before[kind]).tobytes()
        told.mirror(kind, np.arange(len(move)), kept)
    assert 0 < sum(map(len, changed)) < np.count_nonzero(moved)
    users = graph.all_rows()[USER]
    for engine in (loose, told):
        engine.layer2(graph, users)
    assert loose.hidden2[users].tobytes() == told.hidden2[users].tobytes()
    # What was held back is not lost: without a tolerance it comes.
    loose.layer1(graph, graph.all_rows())
    assert [hidden[:].tobytes() for hidden in loose.hidden1] == [hidden[:].tobytes() for hidden in exact.hidden1]


@every_backend
def test_hubs_with_all_their_neighbours(backend: MakeBackend) -> None:
    """In-degrees far above the stored slots of a window, in a growing graph, are exact."""
    config = ModelConfig(hidden=16, heads=2, head_hidden=8, window=0)
    artifact = untrained(config, 6)
    made = backend(config, artifact.weights)
    for size in (66, 200, 900):
        graph = SampleGraph(config, size, mean=40, seed=size)
        assert max(int(graph.windows(number).counts.max()) for number in range(len(config.relations))) == size
        compute_all(made, graph)
        hidden1, hidden2, score = reference(artifact.weights, config, graph.input())
        pairs = [(hidden1[name], made.hidden1[kind][: graph.rows(kind)]) for kind, name in enumerate(TYPES)]
        pairs += [(hidden2, made.hidden2[:size]), (score, made.score[:size])]
        assert max(float(np.abs(one - other).max()) for one, other in pairs) <= LARGEST_ERROR
    assert made.memory_bytes > 0
