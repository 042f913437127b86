"""A shard goes over to another artifact: in the end as if it had never served another, or as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

import streams.worker.rollout.engine_replacement
from graphstate.types import TYPES, USER, GraphSpec, Mutation
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.engine.cpu import Engine, GraphView, MakeBackend
from model.errors import ArtifactError
from model.network.pyg_reference import Reference
from model.types import Int64s
from streams.errors import ModelRefused
from streams.offline.replay import batches, cluster, replay
from streams.shard.graph_view import graph_spec
from streams.shard.score_publisher import REPUBLISH_ROWS_MAX
from streams.shard.shard import Shard
from streams.worker.inspection.reference_process import ReferenceProcess
from streams.worker.inspection.user_audit import compare
from streams.worker.rollout.engine_replacement import Successor, judged, misfit
from tests.support.strategies import history

CONFIG = ModelConfig(hidden=8, heads=2, head_hidden=8, window=3, floor=1)
OLD = untrained(CONFIG, 1)
NEW = untrained(ModelConfig(hidden=12, heads=3, head_hidden=4, window=3, floor=1), 2)
SPEC = GraphSpec(floor=1, window=3)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.successor, "PIECE", 7)


def finish(successor: Successor, between: Callable[[], None] = lambda: None) -> None:
    """Make it and do all pieces, with something else between them."""
    successor.make()
    while successor.piece():
        between()


def same(one: Shard, other: Shard) -> None:
    """Both hold the same graph's embeddings, bit for bit."""
    users = one.graph.ledger.users.index
    assert users.keys() == other.graph.ledger.users.index.keys()
    for kind in range(len(TYPES)):
        names = other.graph.ledger.tables[kind].index
        for name, row in one.graph.ledger.tables[kind].index.items():
            assert np.array_equal(one.engine.hidden1[kind][row], other.engine.hidden1[kind][names[name]]), name
    for name, row in users.items():
        assert one.engine.score[row] == other.engine.score[other.graph.ledger.users.index[name]], name
    for mine, theirs in zip(one.reads.scores(), other.reads.scores(), strict=True):
        assert np.array_equal(mine, theirs)


def grown(folder: Path, log: list[Mutation], artifact: Artifact = OLD, make: MakeBackend = Engine) -> Shard:
    """A shard that has taken some events."""
    shard = Shard.open(folder, artifact, SPEC, backend=make)
    for number, some in enumerate(batches(log, 50)):
        shard.step(some)
        shard.commit(number + 1)
    return shard


def test_a_switch_among_steps_ends_as_a_fresh_start(tmp_path: Path) -> None:
    """Steps between the pieces, also one of new users; then the bits are those of a shard that never served another.

    Every score that is published says of which artifact it is; afterwards each live user's last one is the new one's.
    """
    log = history(5, 900)
    shard = grown(tmp_path / "switched", log[:400])
    successor, later, last = Successor(shard, NEW, Engine), batches(log[400:700], 15), dict[str, str]()

    def step(some: list[Mutation]) -> None:
        outcome = shard.step(some)
        shard.commit(shard.next_offset + 1)
        for user in outcome.forgotten:
            last.pop(user, None)
        last.update({score.user: outcome.model for score in outcome.scores})

    finish(successor, lambda: step(next(later, [])))
    assert set(last.values()) == {OLD.version}
    seen = successor.sample(Random(1))
    assert seen is not None
    judged(seen, Reference(NEW.weights, NEW.config))
    successor.take_over(shard)
    assert shard.publisher.republish_pending
    for some in (*later, *batches(log[700:], 40), []):
        step(some)
    fresh = grown(tmp_path / "fresh", log, NEW)
    same(shard, fresh)
    assert {user for user, version in last.items() if version == NEW.version} == set(shard.reads.scores()[0])
    assert shard.reads.user(shard.reads.scores()[0][0])["model"] == NEW.version  # type: ignore[index]
    shard.close()
    reopened = Shard.open(tmp_path / "switched", NEW, SPEC)
    assert not reopened.publisher.republish_pending
    same(reopened, fresh)
    for one in (reopened, fresh):
        one.close()


def test_a_restart_after_a_switch_owes_what_was_not_published(tmp_path: Path) -> None:
    """A crash behind the first portion: the rest is owed by the shard that is opened with the new artifact."""
    shard = grown(tmp_path, history(5, 400))
    successor = Successor(shard, NEW, Engine)
    finish(successor)
    successor.take_over(shard)
    users = shard.users
    assert users > 20
    assert users < REPUBLISH_ROWS_MAX
    shard.graph.begin()
    shard.commit(99)
    shard.close()
    for artifact, wanted in ((NEW, users), (OLD, users)):
        reopened = Shard.open(tmp_path, artifact, SPEC)
        assert reopened.publisher.republish_pending
        assert len(reopened.step([]).scores) == wanted
        assert not reopened.publisher.republish_pending
        reopened.close()


def test_given_up_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """Half computed and given up: the shard goes on with the bits of one that was left alone."""
    log = history(6, 500)
    shard, alone = grown(tmp_path / "one", log[:300]), grown(tmp_path / "other", log)
    successor = Successor(shard, NEW, Engine)
    successor.make()
    for _ in range(9):
        successor.piece()
    shard.step(log[300:400])
    successor.give_up()
    assert isinstance(shard.engine, Engine)
    shard.step(log[400:])
    same(shard, alone)
    shard.close()
    alone.close()


class Wrong(Engine):
    """An engine that is off by a little."""

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Scores that are off by 1e-4."""
        super().head(graph, rows)
        self.score[rows] += np.float32(1e-4)


class Full(Engine):
    """An engine that fails in a step, as one on a device that is full."""

    def load_features(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Fail where a step takes features, not where rows are prepared."""
        if sum(map(len, rows)) < 7:
            raise RuntimeError("out of memory")
        super().load_features(graph, rows)


def wild() -> Artifact:
    """Finite weights that make no finite scores."""
    weights = {name: values * np.float32(1e30) for name, values in NEW.weights.items()}
    return Artifact(weights, NEW.config)


def check(successor: Successor, some: list[Mutation]) -> None:
    """All that is looked at before an artifact may serve."""
    finish(successor)
    successor.shard.step(some)
    successor.shard.commit(99)
    seen = successor.sample(Random(2))
    assert seen is not None
    judged(seen, Reference(successor.artifact.weights, successor.artifact.config))


@pytest.mark.parametrize(
    ("artifact", "make", "says"),
    [
        (wild(), Engine, "not finite: train it anew"),
        (NEW, Wrong, r"differs from PyTorch Geometric by 0.0001 \(score\)"),
        (NEW, Full, "out of memory"),
        (
            untrained(ModelConfig(window=4, floor=1)),
            Engine,
            "graph of window 4, the states here keep 3: train one with",
        ),
        (untrained(ModelConfig(window=3, floor=2)), Engine, "floor 2, the states here keep 1"),
    ],
)
def test_what_fails_its_checks_is_refused(tmp_path: Path, artifact: Artifact, make: MakeBackend, says: str) -> None:
    """One line says why, and the old one serves on with the bits of a shard that was never asked."""
    log = history(7, 500)
    shard, alone = grown(tmp_path / "one", log[:450]), grown(tmp_path / "other", log)
    successor = Successor(shard, artifact, make)
    with np.errstate(all="ignore"), pytest.raises(ModelRefused, match=says) as refused:
        check(successor, log[450:475])
    assert "\n" not in str(refused.value)
    successor.give_up()
    # Events that it has already change nothing.
    shard.step(log[450:])
    same(shard, alone)
    assert shard.artifact is OLD
    shard.close()
    alone.close()


def test_without_room_it_is_refused(tmp_path: Path) -> None:
    """Where memory does not permit two engines, nothing is made."""
    shard = grown(tmp_path, history(3, 100))
    with pytest.raises(ModelRefused, match="0 MB are free"):
        Successor(shard, NEW, Engine, lambda: 1).make()
    assert isinstance(shard.engine, Engine)
    finish(Successor(shard, NEW, Engine, lambda: None))
    shard.close()


def test_another_vocabulary_does_not_fit() -> None:
    """Features that this release does not serve are refused before anything is computed."""
    assert misfit(CONFIG, SPEC) == ""
    assert "this release" in misfit(ModelConfig(window=3, floor=1, own=CONFIG.own[::-1]), SPEC)
    for other in (CONFIG.relations[::-1], CONFIG.relations[1:]):
        with pytest.raises(ArtifactError, match="this release"):
            graph_spec(ModelConfig(window=3, floor=1, relations=other), retention_s=0, lateness_s=0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_switch_one_by_one(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Three shards, each at a time of its own with events between: in the end every bit is a fresh replay's.

    What one is told under another version counts for nothing: neither first-layer outputs nor percentiles.
    """
    log, spec = history(11, 1_200, users=60), SPEC
    with cluster(OLD, spec, tmp_path / "switched", 3) as switched, cluster(NEW, spec, tmp_path / "fresh", 3) as fresh:
        replay(fresh, log, 100)
        parts = list(batches(log, 100))
        for some in parts[:6]:
            replay(switched, some)
        for token, number in enumerate(order, 10):
            shard = switched.shards[number]
            successor = Successor(shard, NEW, Engine)
            finish(successor)
            successor.take_over(shard)
            assert shard.mirrors.build_halos(shard.graph.none(), shard.graph.none()) == []
            some = parts[6 + token - 10]
            switched.feed(some)
            for other in range(3):
                switched.round(other)
            switched._send(shard.mirrors.announce(token))
            switched.drain()
            told = [one.artifact.version for one in switched.shards]
            assert told.count(NEW.version) == token - 9
        for some in parts[9:]:
            replay(switched, some)
        for one, other in zip(switched.shards, fresh.shards, strict=True):
            mirrored = one.graph.mirrored(USER)
            assert len(mirrored) > 0
            names = one.graph.ledger.users.ids
            for row in mirrored.tolist():
                theirs = other.graph.ledger.users.index[names[row]]
                assert np.array_equal(one.engine.hidden1[USER][row], other.engine.hidden1[USER][theirs]), names[row]
        for mine, theirs in zip(switched.scores(), fresh.scores(), strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.slow
def test_the_judge_in_another_process_says_the_same(tmp_path: Path) -> None:
    """Bit for bit what the reference says here; once it is gone, nothing can be judged."""
    shard = grown(tmp_path, history(5, 300))
    successor = Successor(shard, NEW, Engine)
    finish(successor)
    there, here = ReferenceProcess(NEW), Reference(NEW.weights, NEW.config)
    try:
        for seed in range(3):
            seen = successor.sample(Random(seed))
            assert seen is not None
            judged(seen, there)
            assert compare(seen, there).error == compare(seen, here).error
    finally:
        there.close()
    with pytest.raises(ModelRefused, match="reference process"):
        judged(seen, there)
    shard.close()
