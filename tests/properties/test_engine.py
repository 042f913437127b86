"""Random histories: the shard's embeddings and scores are those of plain PyTorch Geometric on the twin's graph."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import TYPES, USER, GraphSpec, Mutation
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.engine.cpu import Engine, MakeBackend
from model.network.pyg_reference import reference
from streams.messages.packs.mutation_packs import Record
from streams.shard.graph_view import graph_input, graph_spec
from streams.shard.shard import Shard
from tests.support.engines import BACKENDS, one_thread
from tests.support.examples import examples
from tests.support.strategies import histories, history, rearranged, splits

LARGEST_ERROR = 1e-5

ARTIFACTS = [
    untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=2, floor=1, target_mean=1.5, target_std=2), 1),
    untrained(ModelConfig(hidden=12, heads=3, head_hidden=4, window=0, floor=2, horizon_s=3_600), 2),
    untrained(ModelConfig(), 3),
]


backends = st.sampled_from(list(BACKENDS.values()))


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Run on one thread, which is fastest for small batches."""
    with one_thread():
        yield


def spec_of(artifact: Artifact, retention_s: int = 0) -> GraphSpec:
    """Return the graph spec of an artifact."""
    return graph_spec(artifact.config, retention_s=retention_s, lateness_s=86_400)


@contextmanager
def shard(artifact: Artifact, path: Path | None = None, backend: MakeBackend = Engine) -> Iterator[Shard]:
    """Open a shard, in a temporary folder unless one is given."""
    with tempfile.TemporaryDirectory(prefix="groundswell-") as own:
        opened = Shard.open(path or Path(own) / "state", artifact, spec_of(artifact), backend=backend)
        try:
            yield opened
        finally:
            opened.close()


def error(twin: NaiveGraph, tried: Shard) -> float:
    """Return the largest absolute difference of any embedding or score of the twin's graph."""
    snapshot, config = twin.snapshot().canonical(), tried.artifact.config
    hidden1, hidden2, score = reference(tried.artifact.weights, config, graph_input(snapshot, config))
    engine, tables = tried.engine, tried.graph.tables
    rows = [[table.index[name] for name in names] for table, names in zip(tables, snapshot.ids, strict=True)]
    pairs = [(hidden1[name], engine.hidden1[kind][rows[kind]]) for kind, name in enumerate(TYPES)]
    pairs += [(hidden2, engine.hidden2[rows[USER]]), (score, engine.score[rows[USER]])]
    return max(float(np.abs(one - other).max(initial=0)) for one, other in pairs)


def play(artifact: Artifact, batches: list[list[Mutation]], backend: MakeBackend = Engine) -> tuple[list[str], bytes]:
    """Return the live users after some micro-batches, and their scores as bytes."""
    with shard(artifact, backend=backend) as tried:
        for batch in batches:
            tried.step(batch)
            tried.commit()
        names, reach, percentile, as_of = tried.reads.scores()
        return names, reach.tobytes() + percentile.tobytes() + as_of.tobytes()


@examples(30)
@given(data=st.data(), artifact=st.sampled_from(ARTIFACTS), log=histories(), backend=backends)
def test_engine_is_the_reference(
    data: st.DataObject, artifact: Artifact, log: list[Mutation], backend: MakeBackend
) -> None:
    """After each micro-batch every embedding and score equals the reference."""
    twin = NaiveGraph(spec_of(artifact))
    with shard(artifact, backend=backend) as tried:
        for batch in data.draw(splits(log)):
            twin.apply(batch)
            tried.step(batch)
            tried.commit()
            assert error(twin, tried) <= LARGEST_ERROR


@examples(30)
@given(data=st.data(), artifact=st.sampled_from(ARTIFACTS), log=histories(), backend=backends)
def test_any_order_scores_alike(
    data: st.DataObject, artifact: Artifact, log: list[Mutation], backend: MakeBackend
) -> None:
    """Any order, repetition and split gives the same scores, bit for bit."""
    other = data.draw(splits(data.draw(rearranged(log))))
    assert play(artifact, [log], backend) == play(artifact, other, backend)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(ARTIFACTS)))])
def test_larger_history(number: int, tmp_path: Path) -> None:
    """The same over a few thousand events, with restarts, after which every score is bit-equal."""
    artifact, rng = ARTIFACTS[number], random.Random(number)
    log, twin = history(number + 10, 2_000, users=120, contents=150), NaiveGraph(spec_of(artifact))
    while log:
        size = rng.choice((1, 20, 200, 600))
        batch, log = log[:size], log[size:]
        twin.apply(batch)
        with shard(artifact, tmp_path) as tried:
            tried.step(batch)
            tried.commit()
            assert error(twin, tried) <= LARGEST_ERROR
            before = tried.reads.scores()
        with shard(artifact, tmp_path) as tried:
            assert error(twin, tried) <= LARGEST_ERROR
            for one, other in zip(before, tried.reads.scores(), strict=True):
                np.testing.assert_array_equal(one, other)


def test_larger_history_in_one_go() -> None:
    """One shard stays exact over many small micro-batches."""
    artifact = ARTIFACTS[0]
    log, twin = history(20, 1_500), NaiveGraph(spec_of(artifact))
    with shard(artifact) as tried:
        for start in range(0, len(log), 10):
            batch = log[start : start + 10]
            twin.apply(batch)
            tried.step(batch)
            tried.commit()
            if start % 100 == 0:
                assert error(twin, tried) <= LARGEST_ERROR
        assert error(twin, tried) <= LARGEST_ERROR


@examples(15)
@given(data=st.data(), artifact=st.sampled_from(ARTIFACTS), log=histories())
def test_silent_steps_end_alike(data: st.DataObject, artifact: Artifact, log: list[Mutation]) -> None:
    """Silent steps followed by one that publishes end with bit-equal scores, all of them published."""
    batches = data.draw(splits(log))
    silent = data.draw(st.integers(0, len(batches)))
    with shard(artifact) as tried:
        for number, batch in enumerate(batches):
            outcome = tried.process([Record.of(number, batch)], silent=number < silent)
            assert number >= silent or outcome.scores == []
            tried.commit(number + 1)
        published = tried.process([])
        tried.commit(len(batches))
        assert tried.process([]).scores == []
        names, reach, percentile, as_of = tried.reads.scores()
        if silent == len(batches):
            assert sorted(score.user for score in published.scores) == names
        assert (names, reach.tobytes() + percentile.tobytes() + as_of.tobytes()) == play(artifact, batches)
