"""The analyst's measures beside other libraries: `python -m tests.bench.analyst` prints one JSON object.

--users 100000 --follows 1000000    the size of the random graph
--exact                             instead: a random history, also shuffled, doubled and with kills; every measure is
                                    compared with libraries on the naive graph
--celf FILE                         instead: seeds of the independent cascade beside CELF's on an event file
--live MINUTES --rate 5000          instead: an analyst on the embedded Kafka beside a stream of follows and unfollows
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import igraph
import networkit
import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from graphstate.event_columns import EventColumns
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import FOLLOWS, INTERACTS, GraphSpec, Kind, Mutation
from model.analysis import cascade_seeds, communities, distances
from model.analysis.adjacency import Adjacency, undirected
from model.analysis.components import core_numbers, weak_components
from model.analysis.pagerank import PageRank
from streams.analyst.analyst import RECORDS
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.log_records import read
from streams.analyst.measures import measure
from streams.messages.packs.mutation_packs import Packer
from tests.bench import analyst_cascade
from tests.support.analysts import naive
from tests.support.strategies import history

EVERY = 1_000
ROUNDS = 40
SMALL_USERS, SMALL_FOLLOWS = 3_000, 30_000
"""Size at which exact closeness and betweenness take seconds."""

Edges = tuple[np.ndarray, np.ndarray]


def random_follows(users: int, follows: int, seed: int = 0) -> Edges:
    """Distinct random follows; the popularity of users falls as a power of their rank."""
    rng = np.random.default_rng(seed)
    popular = np.cumsum((np.arange(1, users + 1) + 9.0) ** -0.8)
    source = rng.integers(0, users, int(1.3 * follows))
    target = rng.permutation(users)[np.searchsorted(popular / popular[-1], rng.random(len(source)))]
    keys = np.unique(source * users + target)
    keys = rng.permutation(keys[keys // users != keys % users])[:follows]
    return (keys // users).astype(np.int32), (keys % users).astype(np.int32)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a second run, so that nothing is compiled in it, and its result."""
    work()
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def exact_pagerank(rows: int, edges: Edges) -> np.ndarray:
    """PageRank by networkit to 1e-13."""
    columns = (edges[0].astype(np.uint64), edges[1].astype(np.uint64))
    graph = networkit.GraphFromCoo((np.ones(len(edges[0])), columns), n=rows, directed=True)
    sinks = networkit.centrality.SinkHandling.DistributeSinks
    rank = networkit.centrality.PageRank(graph, 0.85, 1e-13, distributeSinks=sinks)
    rank.norm = networkit.centrality.Norm.L1_NORM
    rank.run()
    return np.array(rank.scores()) / np.sum(rank.scores())


def edges_of(graph: Adjacency) -> Edges:
    """The edges of an adjacency."""
    offsets, targets = graph.csr()
    return np.repeat(np.arange(graph.rows), np.diff(offsets)), targets


def pagerank(rows: int, edges: Edges) -> dict[str, Any]:
    """Changes per second with a refresh every thousand; error and bound before and after a refresh."""
    graph, rank = Adjacency(), None
    graph.ensure_rows(rows)
    rank = PageRank(graph)
    rank.ensure_rows(rows)
    rank.set_live(np.arange(rows), np.arange(0))
    kept = len(edges[0]) - ROUNDS * EVERY // 2
    first, later = [column[:kept] for column in edges], [column[kept:] for column in edges]
    rank.change(np.ones(kept, np.int8), *first)
    graph.change(np.ones(kept, np.int8), *first)
    rank.refresh()
    spent, half = 0.0, EVERY // 2
    gone = np.random.default_rng(1).permutation(kept)[: ROUNDS * half]
    for number in range(ROUNDS):
        piece = slice(number * half, (number + 1) * half)
        source = np.concatenate([later[0][piece], first[0][gone[piece]]])
        target = np.concatenate([later[1][piece], first[1][gone[piece]]])
        sign = np.repeat(np.array([1, -1], np.int8), half)
        begin = time.process_time()
        rank.change(sign, source, target)
        graph.change(sign, source, target)
        spent += time.process_time() - begin
        if number == ROUNDS - 1:
            expected = exact_pagerank(rows, edges_of(graph))
            before = rank.error_bound(), float(np.abs(rank.values() - expected).sum())
        begin = time.process_time()
        rank.refresh()
        spent += time.process_time() - begin
    return {
        "changes_per_s": round(ROUNDS * EVERY / spent),
        "bound_before_refresh": before[0],
        "l1_before_refresh": before[1],
        "bound_after_refresh": rank.error_bound(),
        "l1_after_refresh": float(np.abs(rank.values() - expected).sum()),
    }


def cores(rows: int, edges: Edges) -> dict[str, Any]:
    """Seconds of the k-core and the weak components, and whether they equal igraph's."""
    graph = Adjacency.of(rows, *edges)
    spent, core = seconds(lambda: core_numbers(*undirected(*graph.csr())))
    other = igraph.Graph(n=rows, edges=np.stack(edges, 1), directed=True)
    simple = other.as_undirected(mode="collapse").simplify()
    theirs, expected = seconds(simple.coreness)
    wcc, components = seconds(lambda: weak_components(graph))
    return {
        "core_s": round(spent, 3),
        "igraph_core_s": round(theirs, 3),
        "core_equal": core.tolist() == expected,
        "components_s": round(wcc, 3),
        "components_equal": len(set(components.tolist())) == len(other.connected_components("weak")),
    }


def estimates() -> dict[str, Any]:
    """Spearman of sampled closeness, and the coverage of betweenness' intervals over 20 samples."""
    rows = SMALL_USERS
    graph = Adjacency.of(rows, *random_follows(rows, SMALL_FOLLOWS)).csr()
    live = np.ones(rows, np.bool_)
    close = distances.harmonic_closeness(*graph, np.arange(rows))
    sampled = distances.harmonic_closeness(*graph, distances.sample_sources(live, 128, 1))
    between = distances.betweenness(*graph, np.arange(rows), rows).value
    inside = []
    for seed in range(20):
        found = distances.betweenness(*graph, distances.sample_sources(live, 128, seed), rows)
        known = ~np.isnan(found.high)
        inside.append(((found.low <= between) & (between <= found.high))[known].mean())
    return {
        "closeness_spearman_128": round(float(spearmanr(close, sampled)[0]), 4),
        "betweenness_coverage": round(float(np.mean(inside)), 3),
    }


def groups(rows: int, edges: Edges) -> dict[str, Any]:
    """Leiden from the previous communities after 1 % of the follows changed, beside a cold start."""
    order = np.random.default_rng(2).permutation(len(edges[0]))
    spare = len(order) // 100
    before = [column[order[spare:]] for column in edges]
    after = [column[order[: len(order) - spare]] for column in edges]
    labels, following = communities.match(
        communities.leiden(*undirected(*Adjacency.of(rows, *before).csr()), iterations=10), np.zeros(0, np.int64), 0
    )
    graph = undirected(*Adjacency.of(rows, *after).csr())
    begin = time.process_time()
    warm = communities.leiden(*graph, labels)
    spent = time.process_time() - begin
    cold = communities.leiden(*graph, iterations=10)
    again, _ = communities.match(warm, labels, following)
    both = (again >= 0) & (labels >= 0)
    return {
        "leiden_s": round(spent, 2),
        "adjusted_rand": round(float(adjusted_rand_score(labels[both], again[both])), 3),
        "keep_their_id": round(float((labels == again)[both].mean()), 3),
        "modularity": round(communities.modularity(*graph, warm), 4),
        "modularity_cold": round(communities.modularity(*graph, cold), 4),
    }


def cascade(rows: int, edges: Edges) -> dict[str, Any]:
    """Seconds and guarantee of 50 seeds of the independent cascade with probability .01."""
    graph = Adjacency.of(rows, *edges).csr()
    chance = np.full(len(graph[1]), 0.01)
    spent, found = seconds(lambda: cascade_seeds.choose(*graph, chance, np.ones(rows, np.bool_), 50))
    return {"ic_seeds_s": round(spent, 2), "ic_guarantee": round(found.guarantee, 3), "ic_theta": found.theta}


def rebuild(rows: int, edges: Edges) -> dict[str, Any]:
    """CPU seconds to rebuild the graph from the records of a log of follows, as at a start, without Kafka."""
    packer, mutations = Packer(), zip(*(column.tolist() for column in edges), strict=True)
    values = []
    for offset, (source, target) in enumerate(mutations):
        packer.add_message("in#1:0", offset, offset, 100, [Mutation(Kind.FOLLOW, offset, f"u{source}", f"u{target}")])
        if offset % EVERY == EVERY - 1:
            values += packer.finish()
    values += packer.finish()

    def start() -> LiveGraph:
        graph = LiveGraph(1, 0, 0, 4_096)
        marks: dict[str, int] = {}
        for begin in range(0, len(values), RECORDS):
            for number, value in enumerate(values[begin : begin + RECORDS], begin):
                marks, record = read(marks, number, value)
                graph.apply(0, record.events, record.clock)
            graph.update()
        return graph

    spent, graph = seconds(start)
    memory = graph.memory()
    return {
        "rebuild_s": round(spent, 2),
        "rebuild_events": len(edges[0]),
        "rebuild_equal": graph.follows.graph.edges == len(edges[0]) and len(graph.users) <= rows,
        "graph_mb": round(memory.total_bytes / 1e6),
        "user_bytes": round(memory.user_bytes),
        "edge_bytes": round(memory.edge_bytes),
    }


# Exactness


def live_graph(events: list[Mutation]) -> LiveGraph:
    """The graph after some events in batches of a thousand."""
    graph = LiveGraph(1, 0, 0, 4_096)
    for begin in range(0, len(events), EVERY):
        graph.apply(0, EventColumns.of(events[begin : begin + EVERY]), -1)
        graph.update()
    return graph


def killed(events: list[Mutation]) -> LiveGraph:
    """The graph after two kills, each followed by a start from the log, in which every record stands twice."""
    values = []
    for begin in range(0, len(events), EVERY):
        packer = Packer()
        for offset, event in enumerate(events[begin : begin + EVERY], begin):
            packer.add_message("in#1:0", offset, offset, 100, [event])
        values += 2 * packer.finish()
    graph = LiveGraph(1, 0, 0, 4_096)
    for part in (0.4, 0.7, 1.0):
        graph = LiveGraph(1, 0, 0, 4_096)
        marks: dict[str, int] = {}
        for number, value in enumerate(values[: int(part * len(values))]):
            marks, record = read(marks, number, value)
            graph.apply(0, record.events, record.clock)
            graph.update()
            if number % 10 == 0:
                measure(graph, 1, {})
    return graph


class Truth:
    """The measures of a set of events, by libraries and the naive graph.

    Args:
        events: the events, in any order.
    """

    def __init__(self, events: list[Mutation]) -> None:
        self.edges, users = naive(events, GraphSpec(window=0))
        self.names = sorted(users)
        place = {name: number for number, name in enumerate(self.names)}
        self.pairs = {
            relation: np.array([(place[a], place[b]) for a, b in self.edges[relation]], np.int64).reshape(-1, 2).T
            for relation in (FOLLOWS, INTERACTS)
        }
        count = len(self.names)
        self.pagerank = {name: exact_pagerank(count, (pairs[0], pairs[1])) for name, pairs in self.pairs.items()}
        self.follows = igraph.Graph(n=count, edges=self.pairs[FOLLOWS].T, directed=True)
        self.core = self.follows.as_undirected(mode="collapse").simplify().coreness()
        source, target = self.pairs[FOLLOWS].astype(np.uint64)
        forward, turned = (
            networkit.GraphFromCoo((np.ones(len(source)), ends), n=count, directed=True)
            for ends in ((source, target), (target, source))
        )
        closeness = networkit.centrality.HarmonicCloseness(turned, False)
        betweenness = networkit.centrality.Betweenness(forward, False)
        for algorithm in (closeness, betweenness):
            algorithm.run()
        self.closeness = np.array(closeness.scores()) / (count - 1)
        self.betweenness = np.array(betweenness.scores()) / count / (count - 1)
        graph = NaiveGraph(GraphSpec(window=0))
        graph.apply(events)
        self.shares: Counter[tuple[str, str]] = Counter()
        for content in graph.derive()[0].values():
            if content.has_create:
                self.shares.update((share.user, content.creator) for share in content.shares)


def compare(truth: Truth, graph: LiveGraph) -> dict[str, Any]:
    """Every measure of a graph against the truth."""
    measures = measure(graph, 1, {})
    rows = np.array([measures.rows[name] for name in truth.names])
    follows, count = (measures.follows.offsets, measures.follows.targets), len(rows)
    result: dict[str, Any] = {"events": graph.registers.applied, "users": count}
    result["users_equal"] = sorted(measures.ids[row] for row in np.flatnonzero(measures.live)) == truth.names
    for name, relation, values in (
        ("pagerank", FOLLOWS, measures.pagerank),
        ("interaction_pagerank", INTERACTS, measures.interaction_pagerank),
    ):
        result[f"{name}_edges"] = truth.pairs[relation].shape[1]
        result[f"{name}_l1"] = float(np.abs(values[rows] - truth.pagerank[relation]).sum())
    result["core_equal"] = measures.core[rows].tolist() == truth.core
    result["degrees_equal"] = [measures.followers[rows].tolist(), measures.following[rows].tolist()] == [
        truth.follows.indegree(),
        truth.follows.outdegree(),
    ]
    weak = truth.follows.connected_components("weak")
    result["components_equal"] = len(set(measures.component[rows].tolist())) == len(weak)
    closeness = distances.harmonic_closeness(*follows, rows)[rows]
    result["closeness_error"] = float(np.abs(closeness - truth.closeness).max())
    between = distances.betweenness(*follows, rows, count).value[rows]
    result["betweenness_error"] = float(np.abs(between - truth.betweenness).max())
    ids = measures.ids
    ties = zip(*(column.tolist() for column in graph.registers.interactions()), strict=True)
    result["shares_equal"] = {(ids[sharer], ids[creator]): shares for sharer, creator, shares in ties} == truth.shares
    return result


def exact(count: int) -> dict[str, Any]:
    """Compare after a history in its order, shuffled, shuffled with half of it twice, and after two kills."""
    events = history(11, count, users=2_000, contents=4_000)
    shuffled = list(events)
    random.Random(1).shuffle(shuffled)
    doubled = events + random.Random(2).sample(events, count // 2)
    random.Random(3).shuffle(doubled)
    kinds = {kind.name.lower(): sum(event.kind == kind for event in events) for kind in Kind}
    truth, result = Truth(events), {"kinds": kinds}
    for name, applied in (("in order", events), ("shuffled", shuffled), ("doubled", doubled)):
        result[name] = compare(truth, live_graph(applied))
    return result | {"killed": compare(truth, killed(events))}


def main(arguments: list[str]) -> int:
    """Measure what the arguments name; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--follows", type=int, default=1_000_000)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--events", type=int, default=100_000, help="of --exact")
    parser.add_argument("--celf", type=Path)
    parser.add_argument("--worlds", type=int, default=analyst_cascade.WORLDS, help="of --celf")
    parser.add_argument("--live", type=float, default=0, metavar="MINUTES")
    parser.add_argument("--rate", type=int, default=5_000, help="of --live, events per second")
    options = parser.parse_args(arguments)
    networkit.setNumberOfThreads(1)
    if options.exact:
        result = exact(options.events)
    elif options.celf:
        result = analyst_cascade.against_celf(options.celf, options.worlds)
    elif options.live:
        from tests.bench.analyst_live import run

        result = run(options.users, options.follows, options.rate, options.live)
    else:
        edges = random_follows(options.users, options.follows)
        result = {"users": options.users, "follows": len(edges[0])}
        for part in (pagerank, cores, groups, cascade, analyst_cascade.kept, rebuild):
            result |= part(options.users, edges)
        result |= estimates()
    print(json.dumps(result, indent=1))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
