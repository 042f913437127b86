"""Replacement of a shard's engine: it ends like a fresh start with the new artifact, or leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

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
from streams.shard.score_publisher import REPUBLISH_ROWS
from streams.shard.shard import Shard
from streams.worker.inspection.reference_process import ReferenceProcess
from streams.worker.inspection.user_audit import compare
from streams.worker.rollout import engine_replacement
from streams.worker.rollout.engine_replacement import EngineReplacement, check_user, incompatibility
from tests.support.strategies import history

CONFIG = ModelConfig(hidden=8, heads=2, head_hidden=8, window=3, floor=1)
OLD = untrained(CONFIG, 1)
NEW = untrained(ModelConfig(hidden=12, heads=3, head_hidden=4, window=3, floor=1), 2)
SPEC = GraphSpec(floor=1, window=3)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_replacement, "BLOCK_ROWS", 7)


def finish(replacement: EngineReplacement, between: Callable[[], None] = lambda: None) -> None:
    """Build the engine and compute all blocks, with a call after each."""
    replacement.build()
    while replacement.compute_block():
        between()


def same(one: Shard, other: Shard) -> None:
    """Check that two shards hold the same embeddings and scores, bit for bit."""
    users = one.graph.users.index
    assert users.keys() == other.graph.users.index.keys()
    for kind in range(len(TYPES)):
        names = other.graph.tables[kind].index
        for name, row in one.graph.tables[kind].index.items():
            assert np.array_equal(one.engine.hidden1[kind][row], other.engine.hidden1[kind][names[name]]), name
    for name, row in users.items():
        assert one.engine.score[row] == other.engine.score[other.graph.users.index[name]], name
    for mine, theirs in zip(one.reads.scores(), other.reads.scores(), strict=True):
        assert np.array_equal(mine, theirs)


def grown(folder: Path, log: list[Mutation], artifact: Artifact = OLD, make: MakeBackend = Engine) -> Shard:
    """Return a shard that has applied some events."""
    shard = Shard.open(folder, artifact, SPEC, backend=make)
    for number, some in enumerate(batches(log, 50)):
        shard.step(some)
        shard.commit(number + 1)
    return shard


def test_a_switch_between_steps_equals_a_fresh_start(tmp_path: Path) -> None:
    """With steps between the blocks, also of new users, the result equals a shard that only served the new artifact.

    Every published score names its artifact; afterwards the last score of each live user names the new one.
    """
    log = history(5, 900)
    shard = grown(tmp_path / "switched", log[:400])
    replacement, later, last = EngineReplacement(shard, NEW, Engine), batches(log[400:700], 15), dict[str, str]()

    def step(some: list[Mutation]) -> None:
        outcome = shard.step(some)
        shard.commit(shard.next_offset + 1)
        for user in outcome.forgotten:
            last.pop(user, None)
        last.update({score.user: outcome.model for score in outcome.scores})

    finish(replacement, lambda: step(next(later, [])))
    assert set(last.values()) == {OLD.version}
    seen = replacement.sample(Random(1))
    assert seen is not None
    check_user(seen, Reference(NEW.weights, NEW.config))
    replacement.take_over(shard)
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


def test_a_restart_after_a_switch_publishes_the_rest(tmp_path: Path) -> None:
    """After a crash between two portions, the shard publishes the remaining scores under the new artifact."""
    shard = grown(tmp_path, history(5, 400))
    replacement = EngineReplacement(shard, NEW, Engine)
    finish(replacement)
    replacement.take_over(shard)
    users = shard.users
    assert users > 20
    assert users < REPUBLISH_ROWS
    shard.graph.begin()
    shard.graph.refresh()
    shard.commit(99)
    shard.close()
    for artifact, wanted in ((NEW, users), (OLD, users)):
        reopened = Shard.open(tmp_path, artifact, SPEC)
        assert reopened.publisher.republish_pending
        assert len(reopened.step([]).scores) == wanted
        assert not reopened.publisher.republish_pending
        reopened.close()


def test_a_cancelled_replacement_leaves_no_trace(tmp_path: Path) -> None:
    """After a cancellation halfway, the shard equals one without a replacement, bit for bit."""
    log = history(6, 500)
    shard, alone = grown(tmp_path / "one", log[:300]), grown(tmp_path / "other", log)
    replacement = EngineReplacement(shard, NEW, Engine)
    replacement.build()
    for _ in range(9):
        replacement.compute_block()
    shard.step(log[300:400])
    replacement.cancel()
    assert isinstance(shard.engine, Engine)
    shard.step(log[400:])
    same(shard, alone)
    shard.close()
    alone.close()


class Wrong(Engine):
    """An engine with slightly wrong scores."""

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Add 1e-4 to the scores."""
        super().head(graph, rows)
        self.score[rows] += np.float32(1e-4)


class Full(Engine):
    """An engine that fails in a step, like one on a full device."""

    def load_features(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Fail in a step, not while blocks are computed."""
        if sum(map(len, rows)) < 7:
            raise RuntimeError("out of memory")
        super().load_features(graph, rows)


def wild() -> Artifact:
    """Return an artifact whose finite weights produce scores that are not finite."""
    weights = {name: values * np.float32(1e30) for name, values in NEW.weights.items()}
    return Artifact(weights, NEW.config)


def check(replacement: EngineReplacement, some: list[Mutation]) -> None:
    """Run all checks that precede a switch."""
    finish(replacement)
    replacement.shard.step(some)
    replacement.shard.commit(99)
    seen = replacement.sample(Random(2))
    assert seen is not None
    check_user(seen, Reference(replacement.artifact.weights, replacement.artifact.config))


@pytest.mark.parametrize(
    ("artifact", "make", "message"),
    [
        (wild(), Engine, "not finite: train it again"),
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
def test_an_artifact_that_fails_its_checks_is_refused(
    tmp_path: Path, artifact: Artifact, make: MakeBackend, message: str
) -> None:
    """The error is one line, and the old artifact serves on, bit for bit as without the attempt."""
    log = history(7, 500)
    shard, alone = grown(tmp_path / "one", log[:450]), grown(tmp_path / "other", log)
    replacement = EngineReplacement(shard, artifact, make)
    with np.errstate(all="ignore"), pytest.raises(ModelRefused, match=message) as refused:
        check(replacement, log[450:475])
    assert "\n" not in str(refused.value)
    replacement.cancel()
    # Repeated events change nothing.
    shard.step(log[450:])
    same(shard, alone)
    assert shard.artifact is OLD
    shard.close()
    alone.close()


def test_without_memory_it_is_refused(tmp_path: Path) -> None:
    """Without memory for two engines, none is built."""
    shard = grown(tmp_path, history(3, 100))
    with pytest.raises(ModelRefused, match="0 MB are free"):
        EngineReplacement(shard, NEW, Engine, lambda: 1).build()
    assert isinstance(shard.engine, Engine)
    finish(EngineReplacement(shard, NEW, Engine, lambda: None))
    shard.close()


def test_other_features_or_relations_are_refused() -> None:
    """Features that this release does not serve are refused before any computation."""
    assert incompatibility(CONFIG, SPEC) == ""
    assert "this release" in incompatibility(ModelConfig(window=3, floor=1, own=CONFIG.own[::-1]), SPEC)
    for other in (CONFIG.relations[::-1], CONFIG.relations[1:]):
        with pytest.raises(ArtifactError, match="this release"):
            graph_spec(ModelConfig(window=3, floor=1, relations=other), retention_s=0, lateness_s=0)


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_switch_one_by_one(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Three shards switch at different times, with events in between: the result equals a fresh replay, bit for bit.

    Halos of another version are ignored: neither their first-layer outputs nor their percentiles count.
    """
    log, spec = history(11, 1_200, users=60), SPEC
    with cluster(OLD, spec, tmp_path / "switched", 3) as switched, cluster(NEW, spec, tmp_path / "fresh", 3) as fresh:
        replay(fresh, log, 100)
        parts = list(batches(log, 100))
        for some in parts[:6]:
            replay(switched, some)
        for token, number in enumerate(order, 10):
            shard = switched.shards[number]
            replacement = EngineReplacement(shard, NEW, Engine)
            finish(replacement)
            replacement.take_over(shard)
            assert shard.mirrors.build_halos(shard.graph.none(), shard.graph.none()) == []
            some = parts[6 + token - 10]
            switched.feed(some)
            for other in range(3):
                switched.round(other)
            switched._send(shard.mirrors.announce(token))
            switched.drain()
            versions = [shard.artifact.version for shard in switched.shards]
            assert versions.count(NEW.version) == token - 9
        for some in parts[9:]:
            replay(switched, some)
        for one, other in zip(switched.shards, fresh.shards, strict=True):
            mirrored = one.graph.mirrored_nodes.rows(USER)
            assert len(mirrored) > 0
            names = one.graph.users.ids
            for row in mirrored.tolist():
                theirs = other.graph.users.index[names[row]]
                assert np.array_equal(one.engine.hidden1[USER][row], other.engine.hidden1[USER][theirs]), names[row]
        for mine, theirs in zip(switched.scores(), fresh.scores(), strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.slow
def test_the_reference_process_equals_the_reference(tmp_path: Path) -> None:
    """Its result equals the in-process reference, bit for bit; after its end no comparison is possible."""
    shard = grown(tmp_path, history(5, 300))
    replacement = EngineReplacement(shard, NEW, Engine)
    finish(replacement)
    process, reference = ReferenceProcess(NEW), Reference(NEW.weights, NEW.config)
    try:
        for seed in range(3):
            seen = replacement.sample(Random(seed))
            assert seen is not None
            check_user(seen, process)
            assert compare(seen, process).error == compare(seen, reference).error
    finally:
        process.close()
    with pytest.raises(ModelRefused, match="reference process"):
        check_user(seen, process)
    shard.close()
