"""A shard with a tolerance: fewer recomputations, close scores, and a measurement of their error."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import streams.shard.tolerance
from graphstate.types import RELATIONS, TYPES, USER, GraphSpec, Int64s, Kind, Mutation
from model.artifact import Artifact
from model.engine.cpu import MakeBackend
from model.engine.device_selection import Choice
from model.engine.dual_engine import DualEngine
from model.evaluation.calibration import IDENTITY
from model.network.pyg_reference import Reference
from model.simulation.stream import Simulation
from streams.messages.events import TOPIC_OF, from_row, mutations
from streams.offline.replay import batches
from streams.settings.settings import Settings
from streams.shard.alerts.alert_rule import AlertRule
from streams.shard.local_cluster import Cluster
from streams.shard.score_publisher import Publishing
from streams.shard.shard import Outcome, Shard
from streams.worker.rollout.engine_replacement import EngineReplacement, check_user
from streams.worker.worker import Worker
from tests.support.engines import BACKENDS, one_thread
from tests.support.graphs import follow, forget
from tests.support.histories import history

ARTIFACT = Artifact.default()
SPEC = GraphSpec(floor=ARTIFACT.config.floor, window=ARTIFACT.config.window)
MOST = 0.05
ROUNDING = 1e-6
NOW_MS = 1_700_000_000_000
every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)


def events(seed: int, count: int) -> list[Mutation]:
    """Return the beginning of a generated stream of 300 users."""
    return [from_row(row) for row in islice(Simulation(300, 6, seed, posts_per_day=0.5).events(20), count)]


@contextmanager
def opened(folder: Path, *most: float, spread_rows: int = 0, **named: Any) -> Iterator[list[Shard]]:
    """Open a shard for each tolerance."""
    with ExitStack() as stack:
        shards = []
        for number, one in enumerate(most):
            path = folder / f"{number}-{one}"
            shards.append(Shard.open(path, ARTIFACT, SPEC, tolerance=one, spread_rows=spread_rows, **named))
            stack.callback(shards[-1].close)
        yield shards


def step(shard: Shard, some: list[Mutation]) -> Outcome:
    """Run and commit a step."""
    outcome = shard.step(some)
    shard.commit(shard.next_offset + 1)
    return outcome


def bits(shard: Shard) -> list[bytes]:
    """Return everything that a shard's engine has computed, as bytes."""
    engine = shard.engine
    tensors = [(engine.hidden1[kind], shard.view.rows(kind)) for kind in range(len(TYPES))]
    tensors += [(engine.hidden2, shard.view.rows(USER)), (engine.score, shard.view.rows(USER))]
    return [np.asarray(some[:rows]).tobytes() for some, rows in tensors]


def largest_differences(exact: Shard, loose: Shard) -> tuple[float, float]:
    """Return the largest difference in the first layer of own rows, and in the scores of live users."""
    rows, live = exact.graph.own_rows(), np.flatnonzero(exact.graph.live_users())
    pairs = [(one.engine.hidden1[kind][rows[kind]] for one in (exact, loose)) for kind in range(len(TYPES))]
    hidden = [float(np.abs(one - other).max(initial=0)) for one, other in pairs]
    return max(hidden), float(np.abs(exact.engine.score[live] - loose.engine.score[live]).max(initial=0))


def test_fewer_recomputations_and_close_scores(tmp_path: Path) -> None:
    """No first-layer number differs by more than the tolerance, and the second layer is recomputed less."""
    work, held, worst = np.zeros((2, 2)), 0, 0.0
    with opened(tmp_path, 0, MOST) as (exact, loose):
        for some in batches(events(1, 5_000), 40):
            outcomes = [step(shard, some) for shard in (exact, loose)]
            work += [outcome.frontier for outcome in outcomes]
            assert outcomes[0].held == 0
            held += outcomes[1].held
            hidden, score = largest_differences(exact, loose)
            assert hidden <= MOST + ROUNDING
            worst = max(worst, score)
        assert exact.users > 200
    assert work[0, 0] == work[1, 0]
    assert work[1, 1] < 0.85 * work[0, 1]
    assert held > 0.2 * work[1, 0]
    assert 1e-3 < worst < 5 * MOST


@every_backend
def test_a_measurement_changes_nothing(backend: MakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that measures in each step has the same bits and publishes the same as one that never does.

    The measured error is above 0, and at most the largest error of all users.
    """
    found = []
    with one_thread(), opened(tmp_path, 0, MOST, MOST, backend=backend) as (exact, never, always):
        for some in batches(events(2, 1_500), 50):
            step(exact, some)
            monkeypatch.setattr(streams.shard.tolerance, "MEASURE_INTERVAL", 1 << 60)
            quiet = step(never, some)
            monkeypatch.setattr(streams.shard.tolerance, "MEASURE_INTERVAL", 1)
            tried = step(always, some)
            assert bits(always) == bits(never)
            assert (tried.scores, tried.held, tried.frontier) == (quiet.scores, quiet.held, quiet.frontier)
            assert quiet.effect == 0
            assert tried.effect <= largest_differences(exact, always)[1]
            found.append((tried.held, tried.effect))
    assert all(effect == 0 for held, effect in found if not held)
    assert sum(effect > 0 for _, effect in found) > len(found) / 2


def test_measurements_are_periodic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in N steps that held rows back is measured, the same on each run; other steps do not count."""
    monkeypatch.setattr(streams.shard.tolerance, "MEASURE_INTERVAL", 4)
    ways = []
    with opened(tmp_path, MOST, MOST) as shards:
        for shard in shards:
            outcomes = [step(shard, some) for some in batches(events(3, 800), 20)]
            ways.append([outcome.effect for outcome in outcomes])
            assert len([outcome for outcome in outcomes if outcome.held]) < len(outcomes)
            holding = [number for number, outcome in enumerate(outcomes) if outcome.held]
            assert {number for number, outcome in enumerate(outcomes) if outcome.effect} <= set(holding[3::4])
    assert ways[0] == ways[1]
    assert any(ways[0])


def test_no_measurement_while_rows_are_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queued rows would add to the error. With hubs, too, the first layer stays within the tolerance."""
    monkeypatch.setattr(streams.shard.tolerance, "MEASURE_INTERVAL", 1)
    waited = []
    with opened(tmp_path, 0, MOST, spread_rows=16) as (exact, loose):
        for number, some in enumerate(batches(events(5, 2_000), 40)):
            outcomes = [step(shard, some) for shard in (exact, loose)]
            waited.append(outcomes[1].waiting)
            assert not (outcomes[1].waiting and outcomes[1].effect)
            while number % 10 == 9 and (exact.staleness.hub_queue.waiting or loose.staleness.hub_queue.waiting):
                step(exact, [])
                step(loose, [])
            if not exact.staleness.hub_queue.waiting and not loose.staleness.hub_queue.waiting:
                assert largest_differences(exact, loose)[0] <= MOST + ROUNDING
    assert max(waited) > 0
    assert min(waited) == 0


def test_a_restart_is_exact(tmp_path: Path) -> None:
    """A reopened shard equals one without a tolerance, and its first step publishes the scores that differ."""
    near = Publishing(0.002, 0.5)
    log = events(6, 1_500)
    with opened(tmp_path, 0, MOST, 1.0, publishing=near) as (exact, loose, stiff):
        last = {}
        for some in batches(log[:-50], 50):
            step(exact, some)
            step(stiff, some)
            last |= {score.user: score.reach for score in step(loose, some).scores}
        assert loose.staleness.tolerance.holds
        served, kept = loose.reads.scores(), bits(exact)
        assert bits(loose) != kept
    with opened(tmp_path, 0, MOST, 1.0, publishing=near) as (exact, loose, stiff):
        assert bits(exact) == bits(loose) == bits(stiff) == kept
        assert not exact.publisher.republish_pending
        assert loose.publisher.republish_pending
        outcome = step(loose, [])
        assert bits(loose) == kept
        moved = np.abs(loose.reads.scores()[1] - served[1]) > 0.002 * np.maximum(served[1], 1e-3)
        assert moved.any()
        last |= {score.user: score.reach for score in outcome.scores}
        for user, reach in zip(*loose.reads.scores()[:2], strict=True):
            assert abs(last[user] - reach) <= 0.002 * max(last[user], 1e-3) + ROUNDING * reach, user
        assert not loose.staleness.tolerance.holds
    with opened(tmp_path, 0, MOST, publishing=near) as (exact, loose):
        assert not loose.publisher.republish_pending
        for shard in (exact, loose):
            step(shard, log[-50:])
        assert largest_differences(exact, loose)[0] <= MOST + ROUNDING
    # Also without a tolerance after the restart.
    with opened(tmp_path, 0, publishing=near):
        path = tmp_path / f"1-{MOST}"
        shard = Shard.open(path, ARTIFACT, SPEC, publishing=near)
        assert shard.publisher.republish_pending
        step(shard, [])
        shard.close()


def _windows_of(shard: Shard, person: int) -> list[Int64s]:
    """Return, per node type, the rows in whose windows a user is."""
    rows = [np.array([person]) if kind == USER else np.zeros(0, np.int64) for kind in range(len(TYPES))]
    return shard.graph.readers(rows, users_only=False)


def test_nothing_of_a_forgotten_person_is_held_back(tmp_path: Path) -> None:
    """After the step of a forget event, the first layer of the user and of all its readers is exact."""
    log = [one for one in events(7, 2_000) if one.kind != Kind.FORGET]
    with opened(tmp_path, 0, 1.0) as (exact, loose):
        for some in batches(log, 60):
            for shard in (exact, loose):
                step(shard, some)
        users = exact.graph.users
        person = max(range(users.rows), key=lambda row: sum(map(len, _windows_of(exact, row))))
        readers = _windows_of(exact, person)
        assert sum(map(len, readers)) > 20
        stale = [loose.engine.hidden1[kind][rows].tobytes() for kind, rows in enumerate(readers)]
        gone = forget(0, users.ids[person])._replace(time=exact.clock)
        for shard in (exact, loose):
            step(shard, [gone, follow(0, "u1", "u2")._replace(time=exact.clock)])
        assert sum(map(len, _windows_of(exact, person))) == 0
        readers[USER] = np.append(readers[USER], person)
        now = [
            [one.engine.hidden1[kind][rows].tobytes() for kind, rows in enumerate(readers)] for one in (exact, loose)
        ]
        assert now[0] == now[1]
        assert now[1] != stale
        assert largest_differences(exact, loose)[0] > MOST


def both(folder: Path, log: list[Mutation], most: float, size: int) -> list[Cluster]:
    """Return three shards without a tolerance and three with one, after a log in micro-batches of a size."""
    clusters = []
    for tolerance in (0, most):
        specs = [replace(SPEC, shards=3, shard=number) for number in range(3)]
        shards = [Shard.open(folder / f"{tolerance}-{one.shard}", ARTIFACT, one, tolerance=tolerance) for one in specs]
        clusters.append(Cluster(shards))
    for cluster in clusters:
        for some in batches(log, size):
            cluster.feed(some)
            cluster.drain()
    return clusters


@pytest.mark.slow
def test_nothing_of_another_shards_forgotten_people_is_held_back(tmp_path: Path) -> None:
    """Readers of a forgotten mirror are recomputed at once, also where the window changes later, by a fact."""
    found = (event for event in history(random.Random(3), 3_000, users=150, links=True) if event["type"] != "forget")
    log = [one for event in found for one in mutations(json.dumps(event).encode(), TOPIC_OF[event["type"]], NOW_MS)]
    clusters = both(tmp_path, log, 1.0, 100)
    graph, seen = clusters[0].shards[0].graph, 0
    for person in graph.mirrored_nodes.rows(USER).tolist()[:40]:
        readers = _windows_of(clusters[0].shards[0], person)
        gone = forget(0, graph.users.ids[person])._replace(time=graph.clock)
        now = []
        for cluster in clusters:
            engine = cluster.shards[0].engine
            cluster.feed([gone])
            cluster.round(0)
            now.append([engine.hidden1[kind][rows].tobytes() for kind, rows in enumerate(readers)])
            cluster.drain()
        assert now[0] == now[1]
        seen += sum(map(len, readers))
    assert seen > 100
    for pair in zip(*(cluster.shards for cluster in clusters), strict=True):
        assert largest_differences(*pair)[0] > MOST
    for cluster in clusters:
        cluster.close()


def test_mirrors_hold_what_their_owner_holds(tmp_path: Path) -> None:
    """On three shards, too, all values are within the tolerance; mirrors equal what their owner sent."""
    clusters = both(tmp_path, events(8, 2_000), MOST, 60)
    exact, loose = clusters
    for pair in zip(exact.shards, loose.shards, strict=True):
        assert largest_differences(*pair)[0] <= MOST + ROUNDING
    assert loose.carried["halo_nodes"] < exact.carried["halo_nodes"]
    seen = 0
    for shard, kind in product(loose.shards, range(len(TYPES))):
        ids = shard.graph.tables[kind].ids
        for row in shard.graph.mirrored_nodes.rows(kind).tolist():
            owner = loose.shards[shard.graph.tables[kind].owner(row)]
            theirs = owner.graph.tables[kind].index[ids[row]]
            assert np.array_equal(shard.engine.hidden1[kind][row], owner.engine.hidden1[kind][theirs]), ids[row]
            seen += 1
    assert seen > 50
    for cluster in clusters:
        cluster.close()


def test_another_artifact_is_made_ready_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine being prepared holds nothing back, because the reference checks it; once it serves, it does."""
    monkeypatch.setattr(streams.shard.tolerance, "MEASURE_INTERVAL", 1)
    weights = {name: values * np.float32(1.01) for name, values in ARTIFACT.weights.items()}
    new = Artifact(weights, ARTIFACT.config)
    parts = list(batches(events(9, 1_500), 30))
    with opened(tmp_path, MOST) as (shard,):
        for some in parts[:20]:
            step(shard, some)
        successor = EngineReplacement(shard, new, BACKENDS["compiled"])
        successor.build()
        while successor.compute_block():
            pass
        for some in parts[20:35]:
            assert step(shard, some).effect == 0
        assert isinstance(shard.engine, DualEngine)
        coming = shard.engine.coming.hidden1[USER][:].tobytes()
        rows = shard.graph.own_rows()
        assert shard.staleness.tolerance.measure(shard.engine, rows, shard.graph.none(), embeddings_current=True) == (
            sum(map(len, rows)),
            0,
        )
        assert shard.engine.coming.hidden1[USER][:].tobytes() == coming
        reference = Reference(new.weights, new.config)
        for seed in range(10):
            seen = successor.sample(random.Random(seed))
            assert seen is not None
            check_user(seen, reference)
        successor.take_over(shard)
        assert sum(step(shard, some).held for some in parts[35:]) > 0
        fresh = Shard.open(tmp_path / "fresh", new, SPEC)
        for some in parts:
            step(fresh, some)
        assert largest_differences(fresh, shard)[0] <= MOST + ROUNDING
        fresh.close()


def test_the_worker_applies_the_setting(tmp_path: Path) -> None:
    """The setting reaches the shards that a worker opens; without it they are exact."""
    for number, most in enumerate((0.0, 0.02)):
        worker: Any = SimpleNamespace(
            artifact=ARTIFACT,
            rollout=SimpleNamespace(calibration=IDENTITY),
            settings=Settings(datadir=tmp_path / str(number), tolerance=most),
            alert_rule=AlertRule(),
            checkpoints=SimpleNamespace(restore_if_missing=lambda *_: None),
            readiness=SimpleNamespace(progress=lambda *_: None),
            memory=None,
            device=Choice("cpu", ""),
        )
        shard = Worker._open_shard(worker, 0)
        assert shard.staleness.tolerance.limit == most
        shard.close()


@pytest.mark.parametrize("most_edges", [0, 100, 1 << 20])
def test_measurements_are_bounded(most_edges: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement covers a few live readers of held rows, with a limited number of edges."""
    monkeypatch.setattr(streams.shard.tolerance, "SAMPLE_EDGES_MAX", most_edges)
    with opened(tmp_path, MOST) as (shard,):
        for some in batches(events(4, 2_000), 100):
            step(shard, some)
        graph = shard.graph
        users = shard.staleness.tolerance._sample_readers(
            [np.arange(shard.view.rows(kind)) for kind in range(len(TYPES))]
        )
        counts = graph.windows.rows.counts
        edges = sum(int(counts[number][users].sum()) for number, each in enumerate(RELATIONS) if each.target == USER)
        assert edges <= most_edges
        assert graph.live_users(users).all()
        assert len(users) <= streams.shard.tolerance.SAMPLE_USERS < shard.users / 10
        if most_edges > 1 << 10:
            assert len(users) == streams.shard.tolerance.SAMPLE_USERS
            assert edges > 0
