"""Cached sums that are updated equal recomputed ones, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.artifact import Artifact, untrained
from model.config import TYPES, USER, ModelConfig
from model.engine import attention_cache, cpu_layers
from model.engine.cpu import Engine
from model.engine.device_sample import SampleGraph
from model.engine.device_selection import compute_all
from model.types import Int64s
from tests.support.engines import peaked

PEOPLE = TYPES.index(USER)
SMALL = ModelConfig(hidden=12, heads=3, head_hidden=4, window=4, floor=1)
ARTIFACTS = {
    "trained": Artifact.default(),
    "peaked": peaked(Artifact.default()),
    "window 4": untrained(SMALL, 1),
    "window 100": peaked(untrained(replace(SMALL, window=100), 2)),
    "all neighbours": untrained(replace(SMALL, window=0), 3),
}
every_artifact = pytest.mark.parametrize("artifact", ARTIFACTS.values(), ids=ARTIFACTS)


class Tried:
    """An engine on a random graph, with counts of updated targets and of failed updates."""

    def __init__(self, artifact: Artifact, seed: int, **arguments: int) -> None:
        self.artifact, self.graph = artifact, SampleGraph(artifact.config, 300, seed=seed)
        self.engine = Engine(artifact.config, artifact.weights, **arguments)
        compute_all(self.engine, self.graph)
        self.waiting = np.zeros(0, np.int64)

    @property
    def moved(self) -> int:
        """Targets whose sums were updated so far, failed updates included."""
        return int(self.engine._cache.state[cpu_layers.MOVED])

    @property
    def failed(self) -> int:
        """Targets that had to be recomputed after all, so far."""
        return int(self.engine._cache.state[cpu_layers.FAILED])

    def readers(self, rows: list[Int64s], targets: tuple[int, ...]) -> list[Int64s]:
        """Return the rows per node type with one of these rows in a window."""
        found: list[list[Int64s]] = [[np.zeros(0, np.int64)] for _ in TYPES]
        for number, (_, source, target) in enumerate(self.artifact.config.relations):
            view, kind = self.graph.windows(number), TYPES.index(target)
            if kind in targets:
                some = [
                    row
                    for row, (begin, n) in enumerate(zip(view.start.tolist(), view.counts.tolist(), strict=True))
                    if np.isin(view.source[begin : begin + n], rows[TYPES.index(source)]).any()
                ]
                found[kind].append(np.array(some, np.int64))
        return [np.unique(np.concatenate(some)) for some in found]

    def step(self, random: np.random.Generator, wait: bool) -> None:
        """Change some features and windows; some readers of the second layer may be deferred to a later step."""
        graph, engine = self.graph, self.engine
        some = [np.unique(random.integers(0, rows, max(1, rows // 60))) for rows in map(graph.rows, range(len(TYPES)))]
        for kind, rows in enumerate(some):
            graph.refeature(kind, rows)
        rewired = np.unique(random.integers(0, graph.rows(PEOPLE), 4))
        graph.rewire(PEOPLE, rewired)
        engine.load_features(graph, some)
        stale = self.readers(some, (0, 1, 2))
        first = [np.union1d(*pair) for pair in zip(some, stale, strict=True)]
        first[PEOPLE] = np.union1d(first[PEOPLE], rewired)
        # In two calls, as a step does that has several reasons.
        half = [rows[::2] for rows in first]
        changed = engine.layer1(graph, half)
        changed = [np.union1d(*pair) for pair in zip(changed, engine.layer1(graph, first), strict=True)]
        second = self.readers(changed, (PEOPLE,))[PEOPLE]
        second = np.unique(np.concatenate([second, changed[PEOPLE], rewired, self.waiting]))
        self.waiting = second[random.random(len(second)) < 0.3] if wait else second[:0]
        engine.layer2(graph, np.setdiff1d(second, self.waiting))

    def check(self) -> None:
        """Compare with an engine that computes everything at once."""
        anew = compute_all(Engine(self.artifact.config, self.artifact.weights), self.graph)
        assert [rows.tobytes() for rows in self.engine.hidden1] == [rows[:].tobytes() for rows in anew.hidden1]
        assert self.engine.hidden2.tobytes() == anew.hidden2[:].tobytes()


@every_artifact
@pytest.mark.parametrize("wait", [False, True], ids=["at once", "some wait"])
def test_moved_sums_are_those_computed_anew(artifact: Artifact, wait: bool) -> None:
    """Over many steps, with changing windows, several calls of the first layer, and deferred readers."""
    tried, random = Tried(artifact, 5, few=1), np.random.default_rng(6)
    for _ in range(12):
        tried.step(random, wait)
        if not len(tried.waiting):
            tried.check()
    tried.step(random, wait=False)
    tried.check()
    kept_sums = artifact.config.window > 0
    assert (tried.moved > 300) == kept_sums
    if artifact is ARTIFACTS["peaked"]:
        assert tried.failed > 20  # the largest logit left its part of the grid


@every_artifact
def test_few_targets_are_computed_anew(artifact: Artifact) -> None:
    """Steps with too few targets for updates keep the cached sums correct."""
    tried, random = Tried(artifact, 7, few=120), np.random.default_rng(8)
    for _ in range(12):
        tried.step(random, wait=False)
        tried.check()


def test_too_many_changes_are_not_staged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the previous projections, readers are recomputed in full."""
    monkeypatch.setattr(attention_cache, "_STAGED", 3)
    tried, random = Tried(ARTIFACTS["trained"], 9, few=1), np.random.default_rng(10)
    for _ in range(6):
        tried.step(random, wait=False)
        tried.check()


def test_mirrors_and_fresh_rows_count_as_changed() -> None:
    """First-layer outputs of other shards and reset rows reach their readers."""
    tried = Tried(ARTIFACTS["trained"], 11, few=1)
    engine, graph, random = tried.engine, tried.graph, np.random.default_rng(12)
    other = Engine(tried.artifact.config, tried.artifact.weights)
    compute_all(other, graph)
    contents = TYPES.index("content")
    for _ in range(5):
        rows = np.unique(random.integers(0, graph.rows(contents), 5))
        hidden = random.normal(size=(len(rows), tried.artifact.config.hidden)).astype(np.float32)
        none = np.zeros(0, np.int64)
        again = [none, rows[:2], none]
        engine.mirror(contents, rows, hidden)
        engine.init_rows(graph, again)
        other.hidden1[contents][rows] = hidden
        other.hidden1[contents][rows[:2]] = 0
        readers = tried.readers([none, rows, none], (PEOPLE,))[PEOPLE]
        before = tried.moved
        engine.layer2(graph, readers)
        assert tried.moved > before
        everyone = np.arange(graph.rows(PEOPLE))
        for kind in range(len(TYPES)):
            other.mirror(kind, np.arange(graph.rows(kind)), other.hidden1[kind][: graph.rows(kind)].copy())
        other.layer2(graph, everyone)
        assert engine.hidden2.tobytes() == other.hidden2.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trained", "all neighbours"])
def test_warming_up_compiles_all_that_steps_call(name: str) -> None:
    """After a warm-up, no step compiles a kernel or loads one from the cache."""
    artifact = ARTIFACTS[name]
    config = replace(artifact.config, heads=1)  # a shape that no other test has compiled
    artifact = untrained(config, 4)
    engine, graph = Engine(config, artifact.weights, few=1), SampleGraph(config, 200, seed=13)
    engine.warm_up(graph)
    made = [engine._project, engine._layer1, engine._layer2, engine._head, cpu_layers.load]
    before = [len(kernel.overloads) for kernel in made]
    assert min(before) > 0
    compute_all(engine, graph)
    rows = np.arange(0, 60, 3)
    graph.refeature(PEOPLE, rows)
    none = np.zeros(0, np.int64)
    engine.load_features(graph, [rows, none, none])
    engine.layer1(graph, [rows, none, none])
    engine.layer2(graph, np.arange(graph.rows(PEOPLE)))
    engine.head(graph, rows)
    assert [len(kernel.overloads) for kernel in made] == before
