"""Replacement of a shard's engine by that of another artifact, while the shard serves.

    build           create the new engine and compile its kernels
    compute_block   compute layers and scores of all nodes, a block of rows per call; micro-batches in between update
                    both engines
    sample          read a random user, to be compared with `model.network.pyg_reference` on another thread
    take_over       serve the new artifact from the next micro-batch on
    cancel          discard the new engine; the old one serves on unchanged

Everything except `build` runs on the shard thread, between two micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np

from graphstate.state import GraphState
from graphstate.types import TYPES, USER, GraphSpec, Int64s
from model.artifact import Artifact
from model.config import ModelConfig
from model.engine.cpu import Backend, MakeBackend
from model.engine.dual_engine import DualEngine
from model.network.population_sums import PopulationSums
from streams.errors import ModelRefused, one_line
from streams.shard.graph_view import LiveView, unserved
from streams.shard.shard import Shard
from streams.worker.inspection.user_audit import LIMIT, ReferenceModel, UserSnapshot, compare, read_snapshot

BLOCK_ROWS = 2_048
"""Rows per block: about 10 ms, which bounds the delay of micro-batches."""
_SAMPLE_ATTEMPTS = 64
_MEMORY_MARGIN = 1.25
"""Free memory required, as a multiple of the estimated size of the new engine."""


def incompatibility(config: ModelConfig, spec: GraphSpec) -> str:
    """Return why a graph state cannot serve an artifact, and what to do; empty if it can."""
    for name in ("window", "floor", "horizon_s"):
        wanted, kept = getattr(config, name), getattr(spec, name)
        if wanted != kept:
            return (
                f"it reads a graph of {name} {wanted}, the states here keep {kept}: train one with {name} {kept}, "
                "or stop all workers, move their states away, give the same command again, and start them to rebuild"
            )
    return unserved(config)


def check_user(sample: UserSnapshot, reference: ReferenceModel) -> None:
    """Compare one sampled user with the reference; callable on any thread.

    Args:
        sample: What the new engine holds of the user.
        reference: Computes the expected values.

    Raises:
        ModelRefused: They differ by more than `streams.worker.inspection.user_audit.LIMIT`.
    """
    result = compare(sample, reference)
    if result.mismatches:
        raise ModelRefused(
            f"its engine differs from PyTorch Geometric by {result.error:.1g} ({', '.join(result.mismatches)}), "
            f"more than {LIMIT:g}: train it again, or report it with the artifact"
        )


def available_bytes() -> int | None:
    """Return the free memory of the machine or its container in bytes; None if the system does not report it."""
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            limits.append(int(limit) - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass  # not Linux, or no control group of version 2
    return min(limits, default=None)


class Candidate:
    """The part of a shard that `user_audit.read_snapshot` reads, with the new engine instead of the serving one."""

    def __init__(self, shard: Shard, artifact: Artifact, engine: Backend) -> None:
        self.graph: GraphState = shard.graph
        self.view: LiveView = shard.view
        self.artifact = artifact
        self.engine = engine
        self.population: PopulationSums = shard.population


class EngineReplacement:
    """Builds, checks and installs the engine of another artifact in one shard.

    Args:
        shard: The open shard.
        artifact: The artifact to serve.
        make_engine: Creates its engine.
        available: Returns the free memory in bytes, None if unknown.

    Attributes:
        computed: Whether the new engine has computed all nodes.
        checked: Whether it also passed its checks; the caller sets this.
    """

    def __init__(
        self,
        shard: Shard,
        artifact: Artifact,
        make_engine: MakeBackend,
        available: Callable[[], int | None] = available_bytes,
    ) -> None:
        self.shard, self.artifact = shard, artifact
        self._available = available
        self.computed = self.checked = False
        self._make_engine = make_engine
        self._engine: Backend | None = None
        self._dual: DualEngine | None = None
        self._remaining = self._compute_blocks()

    def build(self) -> None:
        """Create the engine and compile its kernels; callable on any thread. A new shape may take a minute.

        Raises:
            ModelRefused: The artifact cannot be served here.
        """
        reason = incompatibility(self.artifact.config, self.shard.graph.spec)
        if reason:
            raise ModelRefused(reason)
        self._check_memory()
        try:
            self._engine = self._make_engine(self.artifact.config, self.artifact.weights)
            # Only compiles and computes nothing, so it may run while a micro-batch changes the graph.
            self._engine.warm_up(self.shard.view)
        except (RuntimeError, MemoryError) as error:
            raise ModelRefused(f"its engine fails here: {one_line(error)}") from error

    def compute_block(self) -> bool:
        """Compute the next block of rows, after `build`; return whether there may be more.

        Raises:
            ModelRefused: The artifact cannot be served here.
        """
        try:
            self.computed = self.computed or next(self._remaining, None) is None
        except (RuntimeError, MemoryError) as error:
            raise ModelRefused(f"its engine fails here: {one_line(error)}") from error
        return not self.computed

    def _compute_blocks(self) -> Iterator[bool]:
        view, graph, engine = self.shard.view, self.shard.graph, self._engine
        if engine is None:
            raise RuntimeError("the engine was not built: call build() first")
        engine.ensure_capacity(view)
        engine.relate(self.shard.population.inputs)
        # From here on micro-batches update both engines, including new rows. Only the rows that exist now remain.
        dual = self._dual = DualEngine(self.shard.engine, engine)
        self.shard.engine = dual
        for rows in _blocks([np.arange(view.rows(kind)) for kind in range(len(TYPES))]):
            engine.init_rows(view, rows)
            yield True
        for rows in _blocks(graph.own_rows()):
            engine.layer1(view, rows)
            yield True
        for rows in _blocks([own if kind == USER else own[:0] for kind, own in enumerate(graph.own_rows())]):
            engine.layer2(view, rows[USER])
            engine.head(view, rows[USER])
            yield True

    def _check_memory(self) -> None:
        serving = self.shard.engine
        wanted = serving.memory_bytes * self.artifact.config.hidden / serving.config.hidden
        available = self._available()
        if serving.device == "cpu" and available is not None and wanted * _MEMORY_MARGIN > available:
            raise ModelRefused(
                f"its engine takes about {wanted / 1e6:.0f} MB beside the one that serves, {available / 1e6:.0f} MB "
                "are free: make room, or stop all workers, give the same command again, and start them"
            )

    @property
    def up_to_date(self) -> bool:
        """Whether every computed value follows from the present graph."""
        return self.computed and self.shard.staleness.embeddings_current

    def validated_engine(self) -> Backend:
        """Return the new engine.

        Raises:
            ModelRefused: The engine failed, or some scores are not finite.
        """
        dual = self._dual
        if dual is None or dual.failed is not None or self.shard.engine is not dual:
            reason = one_line(dual.failed) if dual and dual.failed else "it is not in place"
            raise ModelRefused(f"its engine fails here: {reason}")
        rows = np.flatnonzero(self.shard.graph.live_users())
        wrong = int((~np.isfinite(dual.coming.score[rows])).sum())
        if wrong:
            raise ModelRefused(f"the scores of {wrong:,} of {len(rows):,} users are not finite: train it again")
        return dual.coming

    def sample(self, random: Random) -> UserSnapshot | None:
        """Read what the new engine holds of a random user; None if the shard has no user small enough.

        Raises:
            ModelRefused: The engine failed, or some scores are not finite.
        """
        candidate = Candidate(self.shard, self.artifact, self.validated_engine())
        live = np.flatnonzero(self.shard.graph.live_users()).tolist()
        users = random.sample(live, min(len(live), _SAMPLE_ATTEMPTS))
        samples = (read_snapshot(candidate, user, random.getrandbits(32)) for user in users)
        return next((sample for sample in samples if sample is not None), None)

    def take_over(self, shard: Shard) -> None:
        """Serve the new artifact from the next micro-batch on.

        Raises:
            ModelRefused: The engine failed, or some scores are not finite; nothing was changed.
        """
        shard.replace_engine(self.artifact, self.validated_engine())
        if shard.graph.spec.shards > 1:
            # Scores wait until the other shards have sent their nodes under this version, after the next announcement.
            shard.publisher.republish_pending = False

    def cancel(self) -> None:
        """Restore the previous engine of the shard."""
        if self._dual is not None and self.shard.engine is self._dual:
            self.shard.engine = self._dual.serving


def _blocks(rows: list[Int64s]) -> Iterator[list[Int64s]]:
    """Yield the rows of all node types, at most `BLOCK_ROWS` of one type at a time."""
    for kind, of_kind in enumerate(rows):
        for begin in range(0, len(of_kind), BLOCK_ROWS):
            block = of_kind[begin : begin + BLOCK_ROWS]
            yield [block if other == kind else of_kind[:0] for other in range(len(rows))]
