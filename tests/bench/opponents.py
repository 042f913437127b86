"""The baselines of the engine: full and affected-only recomputation with PyTorch Geometric, and the lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rocksdict import Options, Rdict, WriteBatch
from torch import Tensor

from graphstate.types import RELATIONS, TYPES, USER, Mutation
from model.artifact import Artifact
from model.network.gatv2 import Network
from model.types import GraphInput
from streams.messages.events import mutations
from streams.shard.graph_view import graph_input
from streams.shard.shard import Shard
from tests.bench.system import Cell, Rows, Seeds, wire

Int64s = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
NOW_MS = 4_000_000_000_000
"""An index key of the `edges` family, see graphstate/storage/row_layouts.py."""


def network(artifact: Artifact) -> Network:
    """Build an artifact's network with PyTorch Geometric."""
    made = Network(artifact.config)
    made.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in artifact.weights.items()})
    return made.eval()


@dataclass
class Full:
    """A full pass over the windows: its seconds, and the largest difference between it and the engine."""

    seconds: float
    max_abs_error: float


class Plain:
    """The whole live graph by plain GATv2Conv over the windows, on an input that is built once."""

    def __init__(self, shard: Shard) -> None:
        self._shard, self._config = shard, shard.artifact.config
        self._graph = graph_input(shard.graph.snapshot(), self._config)
        self._network = network(shard.artifact)
        users = np.flatnonzero(shard.graph.live_users())
        self._rows = [users if kind == USER else _in_use(self._graph, shard, kind) for kind in range(len(TYPES))]

    def outputs(self, dtype: torch.dtype = torch.float32) -> tuple[list[Floats], float]:
        """Embeddings and scores of all live rows, in the order of `engine`, and the seconds of the pass alone."""
        network = self._network.to(dtype)
        x = {name: torch.from_numpy(value).to(dtype) for name, value in self._graph.x.items()}
        edges = {name: torch.from_numpy(value) for name, value in self._graph.edges.items()}
        own = torch.from_numpy(self._graph.own).to(dtype)
        with torch.no_grad():
            begin = perf_counter()
            h1, h2 = network.embed(x, (edges, edges))
            score = network.head(h2, own) * self._config.target_std + self._config.target_mean
            seconds = perf_counter() - begin
        users = self._rows[USER]
        first = [h1[name].numpy()[rows] for name, rows in zip(TYPES, self._rows, strict=True)]
        return [*first, h2.numpy()[users], score.numpy()[users]], seconds

    def engine(self) -> list[Floats]:
        """The engine's embeddings and scores of the same rows."""
        engine, users = self._shard.engine, self._rows[USER]
        first = [engine.hidden1[kind][rows] for kind, rows in enumerate(self._rows)]
        return [*first, engine.hidden2[users], engine.score[users]]


def largest(some: list[Floats], others: list[Floats]) -> float:
    """The largest absolute difference of any value."""
    return max(float(np.abs(one - other).max(initial=0)) for one, other in zip(some, others, strict=True))


def full_pass(shard: Shard, passes: int = 3) -> Full:
    """Recompute everything; return the median of several passes, without the time to build the input."""
    plain = Plain(shard)
    seconds = []
    for _ in range(passes):
        outputs, took_s = plain.outputs()
        seconds.append(took_s)
    return Full(median(seconds), largest(outputs, plain.engine()))


class Errors(NamedTuple):
    """Largest differences from the network in float64: of the engine, and of PyTorch Geometric in float32."""

    max_abs_error: float
    plain_float32: float


def errors(shard: Shard) -> Errors:
    """Errors of the engine and of PyTorch Geometric in float32, both against float64."""
    plain = Plain(shard)
    engine, float32, true = plain.engine(), plain.outputs()[0], plain.outputs(torch.float64)[0]
    return Errors(largest(engine, true), largest(float32, true))


def _in_use(graph: GraphInput, shard: Shard, kind: int) -> Int64s:
    """The rows of a node type that an edge refers to; other rows may be vacant and are ignored."""
    used = np.zeros(shard.view.rows(kind), np.bool_)
    for relation in RELATIONS:
        edge = graph.edges[relation.name]
        for end, type_ in enumerate((relation.source, relation.target)):
            if type_ == kind:
                used[edge[end]] = True
    return np.flatnonzero(used)


class Lists:
    """Edges grouped by one end: those of node i are other[start[i]:start[i + 1]]."""

    def __init__(self, by: Int64s, other: Int64s, nodes: int) -> None:
        order = np.argsort(by, kind="stable")
        self.other = other[order]
        self.start = np.concatenate([[0], np.cumsum(np.bincount(by, minlength=nodes))])

    def of(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """The other ends of these rows' edges, and for each the index of its row in `rows`."""
        counts = self.start[rows + 1] - self.start[rows]
        place = np.repeat(np.arange(len(rows)), counts)
        offset = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.other[np.repeat(self.start[rows], counts) + offset], place


class Recomputed(NamedTuple):
    """Users, their scores, and the seconds of finding and extracting, and in total."""

    users: Int64s
    score: NDArray[np.float32]
    extraction_s: float
    seconds: float


class Affected:
    """Affected-only recomputation over all neighbours: find the affected users, extract two hops, run the network.

    The edge lists are taken from the live graph once and not kept up to date, which favours this baseline.
    """

    def __init__(self, shard: Shard) -> None:
        snapshot, self.config = shard.graph.snapshot(), shard.artifact.config
        self.input = graph_input(snapshot, self.config)
        self.network = network(shard.artifact)
        self.nodes = [len(ids) for ids in snapshot.ids]
        every = _all_edges(shard)
        self.edges = sum(len(source) for source, _ in every)
        sizes = [(self.nodes[relation.source], self.nodes[relation.target]) for relation in RELATIONS]
        self.into = [Lists(target, source, size[1]) for (source, target), size in zip(every, sizes, strict=True)]
        self.out = [Lists(source, target, size[0]) for (source, target), size in zip(every, sizes, strict=True)]

    def users(self, seeds: Seeds) -> Int64s:
        """The users whose score may have changed: those within two hops of the changed edges and features."""
        featured = [rows[rows < nodes] for rows, nodes in zip(seeds.featured, self.nodes, strict=True)]
        targets = [rows[rows < nodes] for rows, nodes in zip(seeds.targets, self.nodes, strict=True)]
        first = [np.concatenate(rows) for rows in zip(targets, featured, strict=True)]
        first = self._readers(first, featured)
        return self._readers(first, first)[USER]

    def _readers(self, found: Rows, sources: Rows) -> Rows:
        """The given rows, and all rows with an in-edge from the sources."""
        marks = [np.zeros(nodes, np.bool_) for nodes in self.nodes]
        for mark, rows in zip(marks, found, strict=True):
            mark[rows] = True
        for relation, lists in zip(RELATIONS, self.out, strict=True):
            marks[relation.target][lists.of(sources[relation.source])[0]] = True
        return [np.flatnonzero(mark) for mark in marks]

    def run(self, seeds: Seeds) -> Recomputed:
        """Find, extract, and compute."""
        begin = perf_counter()
        users = self.users(seeds)
        order: list[Int64s] = [np.zeros(0, np.int64) for _ in TYPES]
        order[USER] = users
        second, order = self._layer(order, users_only=True)
        middle = {name: len(rows) for name, rows in zip(TYPES, order, strict=True)}
        first, order = self._layer(order, users_only=False)
        x = {name: torch.from_numpy(self.input.x[name][rows]) for name, rows in zip(TYPES, order, strict=True)}
        own = torch.from_numpy(self.input.own[users])
        extracted = perf_counter()
        with torch.no_grad():
            _, hidden = self.network.embed(x, (first, second), (middle, {TYPES[USER]: len(users)}))
            score = self.network.head(hidden, own) * self.config.target_std + self.config.target_mean
        return Recomputed(users, score.numpy(), extracted - begin, perf_counter() - begin)

    def _layer(self, order: Rows, *, users_only: bool) -> tuple[dict[str, Tensor], Rows]:
        """All in-edges of some rows, renumbered by position, and the rows followed by their sources."""
        relations = [number for number, one in enumerate(RELATIONS) if one.target == USER or not users_only]
        found = {number: self.into[number].of(order[RELATIONS[number].target]) for number in relations}
        place, after = [], []
        for kind, rows in enumerate(order):
            new = np.zeros(self.nodes[kind], np.bool_)
            for number, (sources, _) in found.items():
                if RELATIONS[number].source == kind:
                    new[sources] = True
            new[rows] = False
            after.append(np.concatenate([rows, np.flatnonzero(new)]))
            place.append(np.empty(self.nodes[kind], np.int64))
            place[kind][after[kind]] = np.arange(len(after[kind]))
        edges = {
            RELATIONS[number].name: torch.from_numpy(np.stack([place[RELATIONS[number].source][sources], targets]))
            for number, (sources, targets) in found.items()
        }
        return edges, after


def _all_edges(shard: Shard) -> list[tuple[Int64s, Int64s]]:
    """Sources and targets of all live edges per relation, from the lists in memory."""
    every = []
    for number, relation in enumerate(RELATIONS):
        targets = range(shard.graph.tables[relation.target].rows)
        sources = [shard.graph.windows.in_edges(number, target)[0] for target in targets]
        counts = np.fromiter(map(len, sources), np.int64, len(sources))
        every.append((np.concatenate([*sources, np.zeros(0, np.int64)]), np.repeat(np.arange(len(targets)), counts)))
    return every


def affected_s(opponent: Affected, cell: Cell, slice_s: float) -> tuple[float, float]:
    """Median seconds of the cell's recorded steps, in total and of the extraction; at least one, as many as fit."""
    end = perf_counter() + slice_s
    runs: list[Recomputed] = []
    for seeds in reversed(cell.seeds):
        runs.append(opponent.run(seeds))
        if perf_counter() > end:
            break
    return median(run.seconds for run in runs), median(run.extraction_s for run in runs)


def floor_s(batch: list[Mutation], slice_s: float) -> float:
    """Median seconds to decode a batch of messages and write one row of RocksDB per message: the lower bound."""
    messages = wire(batch)
    runs: list[float] = []
    with TemporaryDirectory(prefix="groundswell-floor-") as folder:
        options: Any = Options(raw_mode=True)
        options.create_if_missing(True)
        db: Any = Rdict(str(Path(folder) / "db"), options)
        end = perf_counter() + slice_s
        while perf_counter() < end or not runs:
            begin = perf_counter()
            write = WriteBatch(raw_mode=True)
            for topic, value in messages:
                (one,) = mutations(value, topic, NOW_MS)
                write.put(f"{one.kind} {one.user} {one.other}".encode(), b"%d" % one.time)
            db.write(write)
            runs.append(perf_counter() - begin)
        db.close()
    return median(runs)
