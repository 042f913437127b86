"""What takes longer than a pass: communities, closeness, betweenness, seeds and learned probabilities, beside it.

Each job works on arrays of one pass that never change. Leiden's library holds Python's lock, so it runs in a process of
its own; the others release it and run in a thread.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Int32s, Int64s
from model.analysis import cascade_seeds, communities, coverage, distances, edge_model
from model.analysis.adjacency import reverse, undirected
from model.analysis.cascade_seeds import CascadeSeeds
from model.analysis.communities import NONE
from model.analysis.coverage import Rates
from model.analysis.distances import SOURCES, Betweenness
from model.analysis.edge_model import EdgeChances
from model.analysis.exposures import Activity, History, first_exposures
from model.analysis.follower_quality import THRESHOLD, Quality, follower_quality
from streams.analyst.measures import Measures, Sharing
from streams.analyst.pace import Rounds
from streams.telemetry.stage_timer import StageTimer

Float64s = NDArray[np.float64]

SEEDS = 50
SOURCE_SEED = 20
LABEL = "c"
"""Prefix of the id of a community that was found, before its number."""
MEMBERSHIPS = "memberships"


@dataclass(frozen=True, eq=False)
class Analysis:
    """The results of one round, by row of the pass they belong to.

    Attributes:
        measures: the pass.
        labels: lasting community of each row, −1 for none.
        following: the first community label that was never used.
        bridge: participation of each row.
        modularity: of the communities.
        closeness: harmonic closeness of each row.
        betweenness: betweenness, with an interval where one is known; None with fewer than two users.
        rates: whom each row's next post reaches.
        seeds: the list by reach with overlap.
        seed_reach: what each seed adds.
        quality: of users as followers, and of their followers.
        cascade: seeds of the independent cascade on the sets that are kept, None without.
        learned: learned probabilities of edges, None if there is too little to learn from.
        communities: ids of the platform's communities by label; None: communities were found, and labels are numbers.
    """

    measures: Measures
    labels: Int64s
    following: int
    bridge: Float64s
    modularity: float
    closeness: Float64s
    betweenness: Betweenness | None
    rates: Rates
    seeds: Int64s
    seed_reach: Float64s
    quality: Quality
    cascade: CascadeSeeds | None = None
    learned: EdgeChances | None = None
    communities: list[str] | None = None

    def community_id(self, label: int) -> str:
        """Return the id of a community by its label."""
        return f"{LABEL}{label}" if self.communities is None else self.communities[label]

    @property
    def suspected(self) -> NDArray[np.bool_]:
        """Whether each row is a live user of a quality below the threshold, `[n]`."""
        return self.measures.live & (self.quality.user < THRESHOLD)


class Background(Rounds[Analysis]):
    """Runs one analysis after the other, at most a fifth of the time.

    Args:
        metrics: is given the seconds of each stage.
        relation: the edges whose communities are published, `follows` or `interactions`; or `memberships`: those that
            the platform names.
        make_process: makes the process for communities.

    Attributes:
        restored: lasting labels that were published before this process, and the first label that is free.
    """

    def __init__(
        self,
        metrics: Callable[[str, float], None],
        relation: str = "follows",
        make_process: Callable[[], Executor] | None = None,
    ) -> None:
        super().__init__("analysis", metrics)
        self._relation = relation
        self._process = (make_process or _process)()
        self.restored: tuple[Int64s, int] = (np.zeros(0, np.int64), 0)

    def begin(self, measures: Measures, sharing: Sharing) -> None:
        """Begin a round with the measures of the last pass; none may run. Raises the error of one that failed."""
        self._start(lambda seconds: self._analysis(measures, sharing, seconds))

    async def _analysis(self, measures: Measures, sharing: Sharing, seconds: dict[str, float]) -> Analysis:
        before = (self.latest.labels, self.latest.following) if self.latest is not None else self.restored
        graph, fresh = await self._in_thread(both_ways, measures, self._relation), None
        if self._relation != MEMBERSHIPS:
            begin = perf_counter()
            loop = asyncio.get_running_loop()
            fresh = await loop.run_in_executor(self._process, communities.leiden, *graph, before[0])
            seconds["communities"] = perf_counter() - begin
        return await self._in_thread(analyse, measures, graph, fresh, before, sharing, seconds)

    async def close(self) -> None:
        """End the round, its thread and the process."""
        await super().close()
        self._process.shutdown(wait=False, cancel_futures=True)


def _process() -> Executor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """End this process when the analyst is gone, even if it was killed; a pool does not do that."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def both_ways(measures: Measures, relation: str) -> tuple[Int64s, Int32s]:
    """Return the neighbours of each row in interactions, if these are asked for, or follows; direction aside, a CSR."""
    edges = measures.interacts if relation == "interactions" else measures.follows
    return undirected(edges.offsets, edges.targets)


def analyse(
    measures: Measures, graph: tuple[Int64s, Int32s], fresh: Int64s | None, before: tuple[Int64s, int],
    sharing: Sharing, seconds: dict[str, float],
) -> Analysis:  # fmt: skip
    """Return the results of a round.

    Args:
        measures: of a pass.
        graph: the edges whose communities are wanted, see `both_ways`.
        fresh: communities of this round by row, numbered anyhow; None: those that the platform names.
        before: lasting labels of the round before, and the first that is free.
        sharing: who shared whom at that pass.
        seconds: receives the duration of each stage.
    """
    if fresh is None:
        labels = communities.of_memberships(len(measures.live), *measures.members, measures.communities)
        following = before[1]
    else:
        labels, following = communities.match(fresh, *before)
    labels = np.where(measures.live, labels, NONE)
    with StageTimer(seconds, "bridges"):
        bridge = communities.participation(*graph, communities.alone(labels))
    turned = reverse(measures.follows.offsets, measures.follows.targets)
    sources = distances.sample_sources(measures.live, SOURCES, SOURCE_SEED)
    with StageTimer(seconds, "closeness"):
        # Along follows: a source reaches a row by following, so a row is close if people find it in few steps.
        closeness = distances.harmonic_closeness(measures.follows.offsets, measures.follows.targets, sources)
    with StageTimer(seconds, "betweenness"):
        live = int(measures.live.sum())
        between = distances.betweenness(*turned, sources, live) if len(sources) > 1 else None
    with StageTimer(seconds, "seeds"):
        rate = coverage.rates(len(measures.live), *sharing.ties, sharing.posts)
        choice = coverage.choose(rate, np.flatnonzero(measures.live & (sharing.posts > 0)), SEEDS)
    with StageTimer(seconds, "quality"):
        follows = measures.follows
        quality = follower_quality(follows.offsets, follows.targets, sharing.ties, sharing.posts)
    with StageTimer(seconds, "learned"):
        learned = _learn(measures, sharing.history)
    cascade = None
    if measures.sets is not None:
        with StageTimer(seconds, "cascade"):
            cascade = cascade_seeds.choose_from(*measures.sets, measures.live, SEEDS)
    return Analysis(
        measures=measures,
        labels=labels,
        following=following,
        bridge=bridge,
        modularity=communities.modularity(*graph, communities.alone(labels)),
        closeness=closeness,
        betweenness=between,
        rates=rate,
        seeds=choice.rows,
        seed_reach=choice.added,
        quality=quality,
        cascade=cascade,
        learned=learned,
        communities=measures.communities if fresh is None else None,
    )


def _learn(measures: Measures, history: History) -> EdgeChances | None:
    """Learn the probabilities of edges from the newest posts, None if too few were shared along follows."""
    follows = measures.follows.offsets, measures.follows.targets
    activity = Activity(history, follows)
    model = edge_model.fit(activity, first_exposures(history, follows, 0, measures.as_of))
    return None if model is None else edge_model.chances(model, activity, measures.as_of)
