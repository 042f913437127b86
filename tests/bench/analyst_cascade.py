"""Seeds of the independent cascade: OPIM-C beside CELF on real follows, and sets that are kept under changes.

CELF (Leskovec et al., KDD 2007) is greedy choice by simulation with lazy updates. Here it simulates in worlds: in each
one every edge is live or not from the start, so that a gain is counted exactly and many worlds are cheap.
"""

from __future__ import annotations

import heapq
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from model.analysis import cascade_seeds, diffusion, edge_model
from model.analysis.adjacency import Adjacency, reverse
from model.analysis.exposures import Activity, first_exposures
from model.analysis.kept_sets import KeptSets
from model.analysis.reverse_sets import coin
from streams.commands._diffusion_evaluation import arrays
from streams.commands._files import read, skipped

Arrays = tuple[np.ndarray, ...]

SEEDS = 50
WORLDS = 2_000
FIRST_WORLD = 1 << 40
"""Coins of worlds are others than those of reverse-reachable sets."""
JUDGED = 4_000
SETS = 65_536
BATCH = 1_000
BATCHES = 100


@njit(cache=True)
def _live(offsets: np.ndarray, targets: np.ndarray, chance: np.ndarray, begins: np.ndarray, live: np.ndarray) -> int:
    """Fill the live edges of each world, `begins` per world and row; returns their number, with no `live` too."""
    count = 0
    for world in range(len(begins)):
        for u in range(len(offsets) - 1):
            begins[world, u] = count
            for j in range(offsets[u], offsets[u + 1]):
                if coin(FIRST_WORLD + world, u, targets[j]) < chance[j]:
                    if len(live):
                        live[count] = targets[j]
                    count += 1
        begins[world, len(offsets) - 1] = count
    return count


@njit(cache=True)
def _gain(
    begins: np.ndarray, live: np.ndarray, row: int, active: np.ndarray, mark: bool, work: Arrays, stamp: int
) -> int:
    """Count the rows that `row` adds over all worlds; with `mark`, note them as active."""
    (queue, seen), total = work, 0
    for world in range(len(active)):
        if active[world, row]:
            continue
        stamp += 1
        queue[0], seen[row] = row, stamp
        head, tail = 0, 1
        while head < tail:
            u = queue[head]
            head += 1
            for j in range(begins[world, u], begins[world, u + 1]):
                v = live[j]
                if seen[v] != stamp and not active[world, v]:
                    seen[v], queue[tail] = stamp, v
                    tail += 1
        total += tail
        if mark:
            active[world, queue[:tail]] = True
    return total


def celf(offsets: np.ndarray, targets: np.ndarray, chance: np.ndarray, count: int, worlds: int) -> list[int]:
    """Rows chosen greedily by their gain over all worlds, on the graph along which messages travel."""
    n = len(offsets) - 1
    begins, nothing = np.zeros((worlds, n + 1), np.int64), np.zeros(0, np.int32)
    live = np.zeros(_live(offsets, targets, chance, begins, nothing), np.int32)
    _live(offsets, targets, chance, begins, live)
    active, work, stamp = np.zeros((worlds, n), np.bool_), (np.empty(n, np.int32), np.zeros(n, np.int64)), 0

    def gain(row: int, *, mark: bool = False) -> int:
        nonlocal stamp
        added = int(_gain(begins, live, row, active, mark, work, stamp))
        stamp += worlds
        return added

    heap = [(-gain(row), row, 0) for row in range(n)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count:
        _, row, known = heapq.heappop(heap)
        if known == len(chosen):
            gain(row, mark=True)
            chosen.append(row)
        else:
            heapq.heappush(heap, (-gain(row), row, len(chosen)))
    return chosen


def against_celf(file: Path, worlds: int = WORLDS) -> dict[str, Any]:
    """Spread of 50 seeds by OPIM-C and by CELF, both simulated forward, for three kinds of probabilities."""
    history, follows = arrays(read([file], "", skipped(0)))
    rows = len(follows[0]) - 1
    end = int(max(history.created_at.max(), history.shared_at.max()))
    activity = Activity(history, follows)
    model = edge_model.fit(activity, first_exposures(history, follows, 0, end))
    assert model is not None
    receiver = np.repeat(np.arange(rows, dtype=np.int32), np.diff(follows[0]))
    kinds = {
        "weighted": 1.0 / np.diff(follows[0])[receiver],
        "constant": np.full(len(receiver), 0.02),
        "learned": edge_model.chances(model, activity, end).of(receiver, follows[1]),
    }
    forward = reverse(*follows)
    # Probabilities of the turned graph: by receiver within each sender, as `reverse` orders them.
    order = np.lexsort((receiver, follows[1]))
    result: dict[str, Any] = {}
    for name, chance in kinds.items():
        cascade_seeds.choose(*follows, chance, np.ones(rows, np.bool_), 1)
        begin = time.process_time()
        ours = cascade_seeds.choose(*follows, chance, np.ones(rows, np.bool_), SEEDS)
        spent = time.process_time() - begin
        begin = time.process_time()
        theirs = celf(*forward, chance[order], SEEDS, worlds)
        celf_s = time.process_time() - begin
        both = [
            diffusion.reach(*forward, chance[order], np.array(list_), samples=JUDGED, seed=9)
            for list_ in (ours.rows, theirs)
        ]
        result[name] = {
            "opimc_s": round(spent, 2), "guarantee": round(ours.guarantee, 3), "sets": ours.theta,
            "spread": round(both[0].mean, 1), "own_estimate": round(ours.reach, 1),
            "celf_s": round(celf_s, 1), "celf_spread": round(both[1].mean, 1),
            "standard_error": round(both[1].standard_error, 2), "ratio": round(both[0].mean / both[1].mean, 4),
        }  # fmt: skip
    return result


def kept(rows: int, edges: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Changes per second with sets that are kept, seconds of a choice from them, and whether they equal new ones."""
    half = BATCH * BATCHES // 2
    first, later = [column[:-half] for column in edges], [column[-half:] for column in edges]
    graph = Adjacency.of(rows, *first)
    sets = KeptSets(graph, SETS, 1 << rows.bit_length())
    gone = np.random.default_rng(1).permutation(len(first[0]))[:half]
    spent = 0.0
    for number in range(BATCHES):
        piece = slice(number * BATCH // 2, (number + 1) * BATCH // 2)
        source = np.concatenate([later[0][piece], first[0][gone[piece]]])
        target = np.concatenate([later[1][piece], first[1][gone[piece]]])
        sign = np.repeat(np.array([1, -1], np.int8), BATCH // 2)
        begin = time.process_time()
        sets.update(sign, source, target)
        # The first batch compiles.
        spent += time.process_time() - begin if number else 0.0
    live = np.arange(graph.rows) < rows
    csr = sets.csr()
    cascade_seeds.choose_from(csr, sets.roots, live, SEEDS)
    begin = time.process_time()
    found = cascade_seeds.choose_from(csr, sets.roots, live, SEEDS)
    choice_s = time.process_time() - begin
    fresh = KeptSets(graph, SETS, sets.roots).csr()
    return {
        "kept_sets": SETS,
        "kept_changes_per_s": round((BATCHES - 1) * BATCH / spent),
        "kept_sampled_again": sets.resampled,
        "kept_choice_s": round(choice_s, 3),
        "kept_guarantee": round(found.guarantee, 3),
        "kept_equal_fresh": all(np.array_equal(ours, theirs) for ours, theirs in zip(csr, fresh, strict=True)),
    }
