"""Measuring: one workload, batch size by batch size, on a real shard with a real RocksDB."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from graphstate.types import TYPES, Mutation
from model.artifact import Artifact
from model.reference import reference
from streams.graphview import graph_input
from streams.records import Record
from streams.shard import Outcome, Shard
from tests.bench.opponents import Affected, FullPass, floor
from tests.bench.states import Say, opened
from tests.bench.workloads import FOLLOWS, Follows, Workload

BATCHES = (1, 10, 100, 1_000, 10_000)
ENGINE_STAGES = ("refresh", "frontier", "layer1", "layer2", "head")
ENGINE, WITH_STORE = "engine", "engine + RocksDB"
FULL, AFFECTED, FLOOR = "full pass", "affected-only", "JSON + RocksDB"
_LEAST = 3
_WARM = 2


@dataclass(frozen=True)
class Row:
    """One line of build/bench.json. over_full, over_affected: how many times quicker; None where nothing was compared."""

    workload: str
    layer: str
    batch: int
    updates_per_s: float
    over_full: float | None
    over_affected: float | None
    p50_ms: float
    max_abs_error: float | None


@dataclass
class Cell:
    """The steps of one batch size, each as seconds by stage, `commit` among them; frontier and edges touched too."""

    batch: int
    steps: list[dict[str, float]] = field(default_factory=list)
    frontiers: list[tuple[int, int]] = field(default_factory=list)
    published: list[int] = field(default_factory=list)
    affected_s: float | None = None
    floor_s: float | None = None

    def p50_s(self, stages: Sequence[str] | None = None) -> float:
        """The median seconds of a step, in some stages or in all."""
        return median(sum(step[name] for name in (stages or step) if name in step) for step in self.steps)

    def stages(self) -> dict[str, float]:
        """The median seconds of each stage."""
        names = dict.fromkeys(name for step in self.steps for name in step)
        return {name: median(step.get(name, 0.0) for step in self.steps) for name in names}


@dataclass
class Measured:
    """All that was measured of one workload. users, edges: live users and window edges at the end."""

    workload: str
    cells: list[Cell]
    full_s: float
    max_abs_error: float
    users: int
    edges: int

    def rows(self) -> list[Row]:
        """As lines of build/bench.json."""
        found = []
        for cell in self.cells:
            for layer, stages in ((ENGINE, ENGINE_STAGES), (WITH_STORE, None)):
                row = _row(self.workload, layer, cell.batch, cell.p50_s(stages))
                found.append(replace(
                    row, over_full=_ratio(self.full_s, cell.p50_s(stages)),
                    over_affected=_ratio(cell.affected_s, cell.p50_s(stages)), max_abs_error=self.max_abs_error,
                ))  # fmt: skip
            others = ((FULL, self.full_s), (AFFECTED, cell.affected_s), (FLOOR, cell.floor_s))
            found += [_row(self.workload, layer, cell.batch, seconds) for layer, seconds in others if seconds]
        return found


def _row(workload: str, layer: str, batch: int, seconds: float) -> Row:
    return Row(workload, layer, batch, _rounded(batch / seconds), None, None, _rounded(seconds * 1e3), None)


def _ratio(opponent_s: float | None, own_s: float) -> float | None:
    return None if opponent_s is None else _rounded(opponent_s / own_s)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain objects."""
    return [asdict(row) for row in rows]


def step(shard: Shard, batch: list[Mutation]) -> tuple[Outcome, dict[str, float]]:
    """Take and commit one batch; the seconds by stage."""
    outcome = shard.take([Record(shard.next_offset, batch)])
    begin = time.perf_counter()
    shard.commit(shard.next_offset + 1)
    return outcome, {**outcome.seconds, "commit": time.perf_counter() - begin}


def error(shard: Shard) -> float:
    """The largest absolute difference of any embedding or score from plain PyTorch Geometric.

    The graph is the shard's own snapshot: that it is the right one, the property tests check against the twin.
    """
    config, engine = shard.artifact.config, shard.engine
    hidden1, hidden2, score = reference(shard.artifact.weights, config, graph_input(shard.graph.snapshot(), config))
    pairs = [(hidden1[name], engine.hidden1[kind]) for kind, name in enumerate(TYPES)]
    pairs += [(hidden2, engine.hidden2), (score, engine.score)]
    return max(float(np.abs(one - other[: len(one)]).max(initial=0)) for one, other in pairs)


def fill(cell: Cell, shard: Shard, workload: Workload, slice_s: float) -> list[list[Mutation]]:
    """Measure steps for so many seconds of steps, at least three; returns the batches. Some at first are not counted."""
    batches: list[list[Mutation]] = []
    for _ in range(_WARM):
        if batch := workload.batch(cell.batch):
            step(shard, batch)
    spent = 0.0
    while (spent < slice_s or len(cell.steps) < _LEAST) and len(batch := workload.batch(cell.batch)) == cell.batch:
        outcome, seconds = step(shard, batch)
        cell.steps.append(seconds)
        cell.frontiers.append(outcome.frontier)
        cell.published.append(len(outcome.scores))
        batches.append(batch)
        spent += sum(seconds.values())
    return batches


def compare(cell: Cell, shard: Shard, workload: Workload, batches: list[list[Mutation]], slice_s: float) -> None:
    """Measure the opponents that depend on the size of a batch."""
    few = batches[: max(_LEAST, 20_000 // cell.batch)]
    cell.floor_s = median(floor(few))
    if isinstance(workload, Follows) and workload.name in FOLLOWS and workload.name != "celebrity":
        opponent, found, begin = Affected(shard, workload), [], time.monotonic()
        while len(found) < _LEAST or time.monotonic() - begin < slice_s:
            batch = workload.batch(cell.batch)
            step(shard, batch)
            found.append(opponent.run(batch))
        cell.affected_s = median(found)


def measure(
    workload: Workload, artifact: Artifact, folder: Path, say: Say, *,
    batches: Sequence[int] = BATCHES, slice_s: float = 2.0, opponents: bool = True,
) -> Measured:  # fmt: skip
    """Everything of one workload. slice_s: seconds of steps per batch size, and at most about as many for an opponent."""
    with opened(workload, artifact, folder, say) as shard:
        cells = []
        for size in batches:
            cell = Cell(size)
            sent = fill(cell, shard, workload, slice_s)
            if not cell.steps:
                say(f"{workload.name}: ends before a batch of {size:,}")
                continue
            if opponents:
                compare(cell, shard, workload, sent, slice_s / 2)
            cells.append(cell)
        full = FullPass(shard)
        full_s = median(full.run() for _ in range(_LEAST)) if opponents else full.run()
        edges = int(sum(counts.sum() for counts in shard.graph.windows.rows.counts))
        return Measured(workload.name, cells, full_s, error(shard), int(shard.graph.live_users().sum()), edges)

