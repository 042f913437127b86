"""Audit of one user: a healthy shard has no mismatch; every corruption of memory is found and repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from graphstate.types import COMMUNITY, CONTENT, CREATED, FOLLOWS, RELATIONS, TYPES, USER, GraphSpec, Mutation
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.engine.cpu import Engine
from model.network.pyg_reference import Reference
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Shard
from streams.worker.inspection.user_audit import LIMIT, AuditResult, compare, read_snapshot, repair_user
from tests.support.strategies import RETAINED, history

ARTIFACT = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=3, floor=1, target_mean=1.5), 1)
REFERENCE = Reference(ARTIFACT.weights, ARTIFACT.config)
KEPT = GraphSpec(floor=1, window=3)


def artifact_of(spec: GraphSpec) -> Artifact:
    """Return an untrained model for a graph."""
    config = ModelConfig(
        hidden=8, heads=2, head_hidden=4, window=spec.window, floor=spec.floor, horizon_s=max(600, spec.horizon_s)
    )
    return untrained(config, 2)


@contextmanager
def played(folder: Path, artifact: Artifact, spec: GraphSpec, count: int, log: list[Mutation]) -> Iterator[Cluster]:
    """Open shards that processed a log in a few micro-batches, with all facts and halos delivered."""
    with ExitStack() as stack:
        shards = [
            Shard.open(folder / str(number), artifact, replace(spec, shards=count, shard=number))
            for number in range(count)
        ]
        opened = Cluster(shards)
        stack.callback(opened.close)
        for begin in range(0, len(log), 70):
            opened.feed(log[begin : begin + 70])
            opened.drain()
        yield opened


def audit(shard: Shard, reference: Reference) -> tuple[list[str], float]:
    """Return the mismatches of all live users of a shard, and the largest error."""
    found, largest = set[str](), 0.0
    for user in np.flatnonzero(shard.graph.live_users()).tolist():
        seen = read_snapshot(shard, user)
        assert seen is not None
        result = compare(seen, reference)
        found |= set(result.mismatches)
        largest = max(largest, result.error)
    return sorted(found), largest


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("spec", [KEPT, GraphSpec(floor=2, window=0), *RETAINED], ids=str)
def test_healthy(tmp_path: Path, spec: GraphSpec, count: int) -> None:
    """There is no mismatch after a random history, for any window, retention and number of shards."""
    artifact = artifact_of(spec)
    reference = Reference(artifact.weights, artifact.config)
    with played(tmp_path, artifact, spec, count, history(count, 700, users=30, contents=50)) as tried:
        for shard in tried.shards:
            found, error = audit(shard, reference)
            assert (found, error <= LIMIT) == ([], True)
            before = values(shard)
        again = audit(tried.shards[-1], reference)
        assert again[0] == []
        assert values(tried.shards[-1]) == before


def test_healthy_while_messages_are_pending(tmp_path: Path) -> None:
    """There is no mismatch between any two steps, while facts and halos of other shards have not arrived."""
    spec, random, audited = RETAINED[0], Random(7), 0
    artifact = artifact_of(spec)
    reference, log = Reference(artifact.weights, artifact.config), history(8, 600, users=30, contents=50)
    with played(tmp_path, artifact, spec, 3, log[:100]) as opened:
        for begin in range(100, len(log), 20):
            opened.feed(log[begin : begin + 20])
            opened.round(random.randrange(3))
            for shard in opened.shards:
                for user in random.sample(np.flatnonzero(shard.graph.live_users()).tolist(), 2):
                    seen = read_snapshot(shard, user)
                    assert seen is not None
                    assert compare(seen, reference).mismatches == []
                    audited += 1
    assert audited > 100


def values(shard: Shard) -> list[Any]:
    """Return all values that a shard holds of own and mirrored nodes, as bytes."""
    graph, engine = shard.graph, shard.engine
    snapshot = graph.snapshot()
    windows = [
        sorted(zip(*pairs.tolist(), times.tolist(), strict=True))
        for pairs, times in zip(snapshot.edges, snapshot.times, strict=True)
    ]
    readers = [
        [sorted(of_source(graph.windows, number, row)) for row in range(graph.tables[USER].rows)]
        for number in (FOLLOWS,)
    ]
    rows = [shard.view.rows(kind) for kind in range(len(TYPES))]
    return [
        windows,
        readers,
        [
            snapshot.propagated[kind].tobytes() + engine.hidden1[kind][: rows[kind]].tobytes()
            for kind in range(len(TYPES))
        ],
        [degree[: len(ids)].tolist() for degree, ids in degrees(shard)],
        snapshot.own.tobytes(),
        engine.hidden2[: rows[USER]].tobytes(),
        engine.score[: rows[USER]].tobytes(),
        shard.publisher.percentiles.percentile(np.arange(rows[USER])).tobytes(),
    ]


def degrees(shard: Shard) -> Iterator[tuple[Any, list[str]]]:
    """Yield the in-degrees of each relation, and the ids of its targets."""
    tables = shard.graph.tables
    for number, relation in enumerate(RELATIONS):
        yield shard.graph.windows.rows.degree[number], tables[relation.target].ids


def of_source(windows: Any, number: int, source: int) -> Iterator[int]:
    """Yield the targets whose window holds a source."""
    slot = windows.rows.head[number][source]
    while slot >= 0:
        yield int(windows.pool.target[slot])
        slot = windows.pool.next[slot]


def spoil_hidden1(shard: Shard, user: int) -> None:
    """Change a first-layer output."""
    shard.engine.hidden1[USER][user, 2] += 0.5


def spoil_content(shard: Shard, user: int) -> None:
    """Change the first-layer output of a content in the user's window."""
    (content,) = shard.graph.windows.sources(CREATED, np.array([user]))[:1]
    shard.engine.hidden1[CONTENT][content] = np.nan


def spoil_hidden2(shard: Shard, user: int) -> None:
    """Change a second-layer output."""
    shard.engine.hidden2[user] *= -1


def spoil_score(shard: Shard, user: int) -> None:
    """Change a score."""
    shard.engine.score[user] += 1e-3


def spoil_x(shard: Shard, user: int) -> None:
    """Change a scaled feature."""
    shard.engine.x[USER][user, 1] += 1


def spoil_projections(shard: Shard, _user: int) -> None:
    """Change the engine's cached projections of first-layer outputs, of all nodes."""
    for number, relation in enumerate(RELATIONS):
        if relation.target == USER:
            engine_of(shard)._cache.projected[number] += np.float32(0.3)


def spoil_sums(shard: Shard, _user: int) -> None:
    """Change the engine's cached window sums of all users, and recompute the users from them."""
    engine = engine_of(shard)
    for sums in engine._cache.sums.values():
        sums[:] = sums + 0.3
    few, engine._few = engine._few, 1
    engine.layer2(shard.view, np.flatnonzero(shard.graph.live_users()))
    engine._few = few


def engine_of(shard: Shard) -> Engine:
    """Return the compiled engine of a shard."""
    assert isinstance(shard.engine, Engine)
    return shard.engine


def spoil_window(shard: Shard, user: int) -> None:
    """Change the source in a slot, but not the reverse lists."""
    windows = shard.graph.windows
    start = int(windows.rows.start[FOLLOWS][user])
    held = set(windows.sources(FOLLOWS, np.array([user])).tolist())
    windows.pool.source[start] = next(row for row in range(shard.view.rows(USER)) if row not in held)


def spoil_time(shard: Shard, user: int) -> None:
    """Change the time in a slot."""
    windows = shard.graph.windows
    windows.pool.time[windows.rows.start[CREATED][user]] -= 9 * 86_400_000_000


def spoil_length(shard: Shard, user: int) -> None:
    """Remove an edge from a window."""
    shard.graph.windows.rows.counts[FOLLOWS][user] -= 1


def spoil_links(shard: Shard, user: int) -> None:
    """Cut the reverse list of a source in the window."""
    windows = shard.graph.windows
    source = int(windows.sources(FOLLOWS, np.array([user]))[0])
    windows.rows.head[FOLLOWS][source] = -1


def spoil_degree(shard: Shard, user: int) -> None:
    """Change the number of in-edges, which shows that a window does not hold all of them."""
    shard.graph.windows.rows.degree[FOLLOWS][user] = 0


def spoil_bit(shard: Shard, user: int) -> None:
    """Change the last bit of a first-layer output."""
    hidden = shard.engine.hidden1[USER]
    hidden[user, 2] = np.nextafter(hidden[user, 2], np.float32(9))


def spoil_propagated(shard: Shard, user: int) -> None:
    """Change a propagated feature."""
    shard.graph.users.propagated[user, 3] += 2


def spoil_community(shard: Shard, _user: int) -> None:
    """Change a propagated feature of all communities."""
    shard.graph.communities.propagated[: shard.view.rows(COMMUNITY)] += 1


def spoil_own(shard: Shard, user: int) -> None:
    """Change an own feature."""
    shard.graph.users.own[user, 5] += 3


def spoil_counter(shard: Shard, user: int) -> None:
    """Change a counter and a ring."""
    shard.graph.users.counts[user, 1] += 40
    shard.graph.users.rings[user] += 1


def spoil_register(shard: Shard, user: int) -> None:
    """Change the newest event time of a user."""
    shard.graph.users.last_event_at_cells[user] += 86_400_000_000


SPOILT: list[tuple[Callable[[Shard, int], None], str]] = [
    (spoil_hidden1, "hidden1"),
    (spoil_content, "hidden1"),
    (spoil_hidden2, "hidden2"),
    (spoil_score, "score"),
    (spoil_x, "x"),
    (spoil_projections, "hidden2"),
    (spoil_sums, "hidden2"),
    (spoil_window, "window"),
    (spoil_time, "window"),
    (spoil_length, "window"),
    (spoil_links, "window"),
    (spoil_degree, "window"),
    (spoil_bit, "outdated"),
    (spoil_propagated, "propagated"),
    (spoil_community, "propagated"),
    (spoil_own, "own"),
    (spoil_counter, "counters"),
    (spoil_register, "counters"),
]


UNSEEN = {spoil_x, spoil_projections, spoil_counter, spoil_register}
"""Corruptions that `values` does not show."""


def full_user(shard: Shard) -> int:
    """Return the live user with the most followers and contents."""
    counts = shard.graph.windows.rows.counts
    live = np.flatnonzero(shard.graph.live_users()).tolist()
    user = max(live, key=lambda row: min(counts[number][row] for number in (FOLLOWS, CREATED)))
    assert min(counts[FOLLOWS][user], counts[CREATED][user]) > 0
    return int(user)


@pytest.fixture(scope="module", params=[1, 3])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shard]:
    """Yield a shard, alone or one of three; every test restores it."""
    log = history(5, 700, users=30, contents=50)
    with played(tmp_path_factory.mktemp("tried"), ARTIFACT, KEPT, request.param, log) as opened:
        yield opened.shards[0]


@pytest.mark.parametrize(("spoil", "name"), SPOILT, ids=lambda value: getattr(value, "__name__", ""))
def test_found_and_repaired(tried: Shard, spoil: Callable[[Shard, int], None], name: str) -> None:
    """Audits of all users name the corruption, and repair all values bit-equal."""
    before = values(tried)
    spoil(tried, full_user(tried))
    assert values(tried) != before or spoil in UNSEEN
    found = set[str]()
    for user in np.flatnonzero(tried.graph.live_users()).tolist():
        seen = read_snapshot(tried, user)
        assert seen is not None
        result = compare(seen, REFERENCE)
        found |= set(result.mismatches)
        assert not result.mismatches or repair_user(tried, user, REFERENCE) is None
    assert name in found
    assert audit(tried, REFERENCE)[0] == []
    assert values(tried) == before


def test_an_audit_is_bounded(tried: Shard) -> None:
    """In a large neighbourhood each audit checks some nodes, and all over time; too many own edges are skipped."""
    user = full_user(tried)
    whole = read_snapshot(tried, user, most_edges=10_000)
    own = (
        sum(len(edges) for (number, target), edges in whole.neighbourhood.windows.items() if target == user)
        if whole
        else 0
    )
    assert whole is not None
    assert read_snapshot(tried, user, most_edges=own // 2 - 1) is None
    most, judged = 2 * own, set[tuple[int, int]]()
    for seed in range(60):
        seen = read_snapshot(tried, user, seed, most)
        assert seen is not None
        assert sum(map(len, seen.neighbourhood.windows.values())) <= most
        result = compare(seen, REFERENCE)
        assert (result.mismatches, result.error <= LIMIT) == ([], True)
        judged |= set(seen.neighbourhood.windows)
    assert judged == set(whole.neighbourhood.windows)


def test_a_bounded_audit_is_repaired(tried: Shard) -> None:
    """A repair reads the nodes that the audit read, not those of another seed."""
    user, windows, before = full_user(tried), tried.graph.windows, values(tried)
    whole = read_snapshot(tried, user, most_edges=10_000)
    assert whole is not None
    most = sum(map(len, whole.neighbourhood.windows.values())) - 1

    def judged(seed: int) -> tuple[set[tuple[int, int]], AuditResult]:
        seen = read_snapshot(tried, user, seed, most)
        assert seen is not None
        return {window for window, edges in seen.neighbourhood.windows.items() if edges}, compare(seen, REFERENCE)

    others = judged(0)[0]
    seed, number, target = next((seed, *window) for seed in range(1, 60) for window in sorted(judged(seed)[0] - others))
    windows.pool.time[windows.rows.start[number][target]] -= 1
    assert judged(0)[1].mismatches == []
    result = judged(seed)[1]
    assert result.mismatches == ["window"]
    assert repair_user(tried, user, REFERENCE, result, seed=seed, most_edges=most) is None
    assert values(tried) == before
