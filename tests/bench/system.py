"""The system under test: the real shard on a real RocksDB, its base loaded once and copied for each run."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, thread_time

import numpy as np
from numpy.typing import NDArray

from graphstate.state import FORMAT
from graphstate.types import RELATIONS, TYPES, Kind, Mutation
from model.artifact import Artifact
from model.engine.cpu import Backend, Engine
from streams.messages.events import TOPIC_OF, TopicKind
from streams.messages.files.event_files import FIELDS, row_of
from streams.messages.packs.mutation_packs import Record
from streams.messages.packs.source_progress import SourceProgress
from streams.offline.replay import batches
from streams.shard.graph_view import graph_spec
from streams.shard.shard import Outcome, Shard
from streams.telemetry.stage_timer import StageTimer
from tests.bench.workloads import VERSION, Workload

LOAD_BATCH = 50_000
FOREVER = {"retention_s": 0, "lateness_s": 7 * 86_400}
"""Default retention of the contents: none expires."""
ENGINE = ("refresh", "frontier", "layer1", "layer2", "head")
"""The engine's stages of a step; windows that lost an edge are read from RocksDB in the first."""
SEEDS = 20
"""A cell records the changes of this many of its last steps."""
PROCESSOR_STEPS = 4
"""One step in this many is measured in processor time, too: reading that clock takes 5 µs of a step."""
OTHERS = "other threads"
"""The processor time of RocksDB's threads, beside the stages."""

Say = Callable[[str], None]
MakeBackend = Callable[..., Backend]
Rows = list[NDArray[np.int64]]


@dataclass
class Seeds:
    """The changes of a step: per node type the targets of changed edges, and the nodes whose features changed."""

    targets: Rows
    featured: Rows


@dataclass
class Cell:
    """Seconds per step of one workload at one batch size; stages: their sum by stage.

    processor: processor seconds by stage of `processor_events` events, with those of `OTHERS`.
    """

    workload: str
    batch: int
    engine_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    processor_events: int = 0
    frontier: list[tuple[int, int]] = field(default_factory=list)
    seeds: list[Seeds] = field(default_factory=list)

    def per_s(self, seconds: list[float]) -> float:
        """Updates per second of the median step."""
        return self.batch / median(seconds)


def peaked(artifact: Artifact, factor: float = 25.0) -> Artifact:
    """A copy of the artifact with its attention multiplied, so that a single edge has nearly all of the weight."""
    weights = {
        name: value * np.float32(factor if name.endswith(".att") else 1) for name, value in artifact.weights.items()
    }
    return Artifact(weights, artifact.config)


def open_shard(
    path: Path,
    artifact: Artifact,
    backend: MakeBackend = Engine,
    kept: Mapping[str, int] = FOREVER,
    spread_rows: int = 0,
) -> Shard:
    """Open a shard with a retention."""
    spec = graph_spec(artifact.config, **kept)
    return Shard.open(path, artifact, spec, backend=backend, spread_rows=spread_rows)


def base_state(
    workload: Workload, artifact: Artifact, cache: Path, say: Say, kept: Mapping[str, int] = FOREVER
) -> Path:
    """The folder of a workload's loaded base, made if it does not exist; only copies of it are opened."""
    spec = graph_spec(artifact.config, **kept)
    name = sha256(f"{VERSION} {FORMAT} {workload.key} {spec} {artifact.version}".encode()).hexdigest()[:16]
    folder = cache / name
    if folder.exists():
        return folder
    part = cache / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    if workload.after is not None:
        copy_state(base_state(workload.after, artifact, cache, say, kept), part)
    begin, count = perf_counter(), 0
    shard = open_shard(part, artifact, kept=kept)
    for batch in batches(workload.base(), LOAD_BATCH):
        shard.process([Record.of(shard.next_offset, batch)], silent=True)
        shard.commit(shard.next_offset + 1)
        count += len(batch)
        say(f"loading the base of {workload.name}: {count:,} events in {perf_counter() - begin:.0f} s")
    shard.step([])
    shard.commit(shard.next_offset + 1)
    shard.close()
    part.rename(folder)
    return folder


def copy_state(source: Path, target: Path) -> None:
    """Copy a closed state; its data files, which never change, are hard links."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix == ".sst":
            os.link(path, target / path.name)
        elif path.name != "LOCK":
            shutil.copy2(path, target / path.name)


@contextmanager
def loaded(
    workload: Workload,
    artifact: Artifact,
    cache: Path,
    say: Say,
    *,
    weights: Artifact | None = None,
    backend: MakeBackend = Engine,
    spread_rows: int = 0,
) -> Iterator[Shard]:
    """A shard with the base of a workload, in a folder that is removed at the end.

    weights: open it with this artifact of the same configuration instead of the one that loaded the base.
    backend: computes the layers. spread_rows: as the setting.
    """
    base = base_state(workload, artifact, cache, say)
    with TemporaryDirectory(prefix="run-", dir=cache) as folder:
        state = Path(folder) / "state"
        copy_state(base, state)
        shard = open_shard(state, weights or artifact, backend, spread_rows=spread_rows)
        try:
            yield shard
        finally:
            shard.close()
            del shard
            gc.collect()


def step(shard: Shard, cell: Cell, batch: list[Mutation]) -> Outcome:
    """Process and commit one micro-batch; add its times to the cell."""
    newest = SourceProgress.of_file(max((mutation.time for mutation in batch), default=0))
    record = Record.of(shard.next_offset, batch, progress=newest)  # packs hold columns
    with_processor = len(cell.whole_s) % PROCESSOR_STEPS == 0
    StageTimer.processor = cell.processor if with_processor else None
    all_threads = process_time() if with_processor else 0.0
    started = thread_time() if with_processor else 0.0
    begin = perf_counter()
    outcome = shard.process([record])
    with StageTimer(outcome.seconds, "commit"):
        shard.commit(shard.next_offset + 1)
    end = perf_counter()
    if with_processor:
        others = process_time() - all_threads - (thread_time() - started)
        cell.processor[OTHERS] = cell.processor.get(OTHERS, 0.0) + max(0.0, others)
        cell.processor_events += len(batch)
        StageTimer.processor = None
    cell.whole_s.append(end - begin)
    cell.engine_s.append(sum(outcome.seconds.get(stage, 0.0) for stage in ENGINE))
    for stage, seconds in outcome.seconds.items():
        cell.stages[stage] = cell.stages.get(stage, 0.0) + seconds
    cell.frontier.append(outcome.frontier)
    return outcome


def measure(
    shard: Shard, workload: Workload, stream: Iterator[Mutation], size: int, slice_s: float, least: int
) -> Cell | None:
    """Run as many micro-batches as fit into the time, but at least `least`; None where the stream has ended."""
    cell = Cell(workload.name, size)
    end = perf_counter() + slice_s
    while perf_counter() < end or len(cell.whole_s) < least:
        batch = workload.batch(stream, size)
        if len(batch) < size:
            break
        step(shard, cell, batch)
        cell.seeds = [*cell.seeds[1 - SEEDS :], seeds_of(shard)]
    return cell if cell.whole_s else None


def seeds_of(shard: Shard) -> Seeds:
    """The changes of the last step."""
    graph = shard.graph
    edges = np.concatenate([*graph.aggregates.taken, np.zeros((0, 5), np.int64)])
    targets: list[list[NDArray[np.int64]]] = [[] for _ in TYPES]
    for number, relation in enumerate(RELATIONS):
        targets[relation.target].append(edges[edges[:, 1] == number, 3])
    return Seeds(
        [np.unique(np.concatenate(some)) if some else np.zeros(0, np.int64) for some in targets],
        [rows.copy() for rows in graph.changes.propagated],
    )


def wire(batch: list[Mutation]) -> list[tuple[TopicKind, bytes]]:
    """Encode mutations as input messages: (topic, bytes)."""
    return [(TOPIC_OF[FIELDS[Kind(one.kind)][0]], json.dumps(row_of(one)).encode()) for one in batch]
