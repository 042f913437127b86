"""One shard goes over to another artifact: its engine is made and filled beside the one that serves, checked, and takes
over between two steps.

    make        the engine, and its kernels, if they are not compiled yet
    pieces      everybody's layers and score, some rows at a time; what steps change meanwhile, both engines take
    sample      a user, to be judged by `model.network.pyg_reference` on another thread
    take_over   the one moment: from the next step on it is the new artifact that serves
    give_up     the old one goes on as if nothing had been

All but the first happens on the shard's thread, between two steps.
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
from streams.errors import ModelRefused, one_line
from streams.shard.graph_view import LiveView, unserved
from streams.shard.shard import Shard
from streams.worker.inspection.user_audit import LIMIT, ReferenceModel, UserSnapshot, compare, read_snapshot

PIECE = 2_048
"""Rows of one piece: some 10 ms, so that no step waits for long."""
_TRIES = 64
_ROOM = 1.25
"""What must be free, as a multiple of what the engine is thought to take."""


def misfit(config: ModelConfig, spec: GraphSpec) -> str:
    """Why a state cannot feed an artifact, and what to do; empty if it can."""
    for name in ("window", "floor", "horizon_s"):
        wanted, kept = getattr(config, name), getattr(spec, name)
        if wanted != kept:
            return (
                f"it reads a graph of {name} {wanted}, the states here keep {kept}: train one with {name} {kept}, "
                "or stop all workers, move their states away, give the same command again, and start them to rebuild"
            )
    return unserved(config)


def judged(seen: UserSnapshot, reference: ReferenceModel) -> None:
    """Compare one of a sample with the reference; on any thread.

    Raises:
        ModelRefused: they differ by more than `streams.worker.inspection.user_audit.LIMIT`.
    """
    verdict = compare(seen, reference)
    if verdict.mismatches:
        raise ModelRefused(
            f"its engine differs from PyTorch Geometric by {verdict.error:.1g} ({', '.join(verdict.mismatches)}), "
            f"more than {LIMIT:g}: train it anew, or report it with the artifact"
        )


def free_bytes() -> int | None:
    """The memory that a process may still take, of the machine or its container; None where nobody says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass  # no Linux, or no control group of version 2
    return min(found, default=None)


class Candidate:
    """The part of a shard that `user_audit.read_snapshot` reads, with the new engine in place of the serving one."""

    def __init__(self, shard: Shard, artifact: Artifact, engine: Backend) -> None:
        self.graph: GraphState = shard.graph
        self.view: LiveView = shard.view
        self.artifact = artifact
        self.engine = engine


class Successor:
    """Another artifact in one shard, until it takes over or is given up.

    done: whether everything is computed; checked: and was judged.

    Args:
        shard: the shard, open.
        artifact: what is to serve.
        make: makes its engine.
        free: how many bytes of memory may still be taken, if anybody knows.
    """

    def __init__(
        self, shard: Shard, artifact: Artifact, make: MakeBackend, free: Callable[[], int | None] = free_bytes
    ) -> None:
        self.shard, self.artifact = shard, artifact
        self._free = free
        self.done = self.checked = False
        self._make = make
        self._coming: Backend | None = None
        self._both: DualEngine | None = None
        self._work = self._pieces()

    def make(self) -> None:
        """Make the engine and compile what it needs; on any thread, as it may take a minute for a new shape.

        Raises:
            ModelRefused: the artifact cannot serve here.
        """
        why = misfit(self.artifact.config, self.shard.graph.spec)
        if why:
            raise ModelRefused(why)
        self._make_room()
        try:
            self._coming = self._make(self.artifact.config, self.artifact.weights)
            # Nothing is computed: that a step changes the graph meanwhile does no harm.
            self._coming.warm_up(self.shard.view)
        except (RuntimeError, MemoryError) as error:
            raise ModelRefused(f"its engine fails here: {one_line(error)}") from error

    def piece(self) -> bool:
        """Do the next piece, once the engine was made; False: there is none left.

        Raises:
            ModelRefused: the artifact cannot serve here.
        """
        try:
            self.done = self.done or next(self._work, None) is None
        except (RuntimeError, MemoryError) as error:
            raise ModelRefused(f"its engine fails here: {one_line(error)}") from error
        return not self.done

    def _pieces(self) -> Iterator[bool]:
        view, graph, coming = self.shard.view, self.shard.graph, self._coming
        if coming is None:
            raise RuntimeError("it was not made")
        coming.ensure_capacity(view)
        # From here on steps bring both up to date, new rows too: those that are there now are all that is left.
        both = self._both = DualEngine(self.shard.engine, coming)
        self.shard.engine = both
        for rows in _pieces_of([np.arange(view.rows(kind)) for kind in range(len(TYPES))]):
            coming.init_rows(view, rows)
            yield True
        for rows in _pieces_of(graph.own_rows()):
            coming.layer1(view, rows)
            yield True
        for rows in _pieces_of([own if kind == USER else own[:0] for kind, own in enumerate(graph.own_rows())]):
            coming.layer2(view, rows[USER])
            coming.head(view, rows[USER])
            yield True

    def _make_room(self) -> None:
        serving = self.shard.engine
        wanted = serving.memory_bytes * self.artifact.config.hidden / serving.config.hidden
        free = self._free()
        if serving.device == "cpu" and free is not None and wanted * _ROOM > free:
            raise ModelRefused(
                f"its engine takes about {wanted / 1e6:.0f} MB beside the one that serves, {free / 1e6:.0f} MB are "
                "free: make room, or stop all workers, give the same command again, and start them"
            )

    @property
    def settled(self) -> bool:
        """Whether what was computed is what the graph makes of it now."""
        return self.done and self.shard.staleness.embeddings_current

    def check(self) -> Backend:
        """The coming engine, all of whose scores are finite.

        Raises:
            ModelRefused: they are not, or the engine failed.
        """
        both = self._both
        if both is None or both.failed is not None or self.shard.engine is not both:
            why = one_line(both.failed) if both and both.failed else "it is not in place"
            raise ModelRefused(f"its engine fails here: {why}")
        rows = np.flatnonzero(self.shard.graph.live_users())
        wrong = int((~np.isfinite(both.coming.score[rows])).sum())
        if wrong:
            raise ModelRefused(f"the scores of {wrong:,} of {len(rows):,} users are not finite: train it anew")
        return both.coming

    def sample(self, random: Random) -> UserSnapshot | None:
        """What the coming engine holds of a random user, for the reference to judge; None where there is nobody.

        Raises:
            ModelRefused: as `check`.
        """
        candidate = Candidate(self.shard, self.artifact, self.check())
        live = np.flatnonzero(self.shard.graph.live_users()).tolist()
        tried = random.sample(live, min(len(live), _TRIES))
        looks = (read_snapshot(candidate, user, random.getrandbits(32)) for user in tried)
        return next((seen for seen in looks if seen is not None), None)

    def take_over(self, shard: Shard) -> None:
        """Serve from the next step on.

        Raises:
            ModelRefused: as `check`; nothing was changed.
        """
        shard.replace_engine(self.artifact, self.check())
        if shard.graph.spec.shards > 1:
            # What the others' nodes are under this version comes with their answers to the next hello.
            shard.publisher.republish_pending = False

    def give_up(self) -> None:
        """Leave the shard as it was."""
        if self._both is not None and self.shard.engine is self._both:
            self.shard.engine = self._both.serving


def _pieces_of(rows: list[Int64s]) -> Iterator[list[Int64s]]:
    """Rows per node type, `PIECE` at a time."""
    for kind, some in enumerate(rows):
        for begin in range(0, len(some), PIECE):
            yield [some[begin : begin + PIECE] if other == kind else some[:0] for other in range(len(rows))]
