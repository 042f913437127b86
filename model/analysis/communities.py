"""Communities by Leiden's method, with labels that last, and bridges between them.

Modularity of the undirected graph is optimised from the previous partition, so that a graph that changes little keeps
most of its communities. A community keeps its label while it and a community of the previous partition have most of
their members in each other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import igraph
import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]

NONE = -1
SEED = 1
ITERATIONS = 2


def leiden(offsets: Int64s, neighbours: Int32s, previous: Int64s | None = None, iterations: int = ITERATIONS) -> Int64s:
    """Return the community of each row, `NONE` for rows without a neighbour, `[n]`.

    Args:
        offsets: of the undirected graph, as `adjacency.undirected` returns it.
        neighbours: of the undirected graph.
        previous: an earlier partition to begin with, `[≤ n]`.
        iterations: passes of Leiden's method.
    """
    rows = np.flatnonzero(np.diff(offsets))
    if not len(rows):
        return np.full(len(offsets) - 1, NONE, np.int64)
    place = np.full(len(offsets) - 1, NONE, np.int64)
    place[rows] = np.arange(len(rows))
    source = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    once = source < neighbours
    graph = igraph.Graph(n=len(rows), edges=np.stack([place[source[once]], place[neighbours[once]]], 1))
    initial = None if previous is None else _compact(previous, rows)
    # igraph draws from this generator; a fixed seed makes equal graphs give equal communities.
    igraph.set_random_number_generator(random.Random(SEED))
    found = graph.community_leiden(objective_function="modularity", initial_membership=initial, n_iterations=iterations)
    labels = np.full(len(offsets) - 1, NONE, np.int64)
    labels[rows] = found.membership
    return labels


def _compact(previous: Int64s, rows: Int64s) -> list[int]:
    """Return the previous community of each row as numbers from 0; rows without one are alone."""
    labels = np.full(len(rows), NONE, np.int64)
    known = rows < len(previous)
    labels[known] = previous[rows[known]]
    alone = labels == NONE
    labels[alone] = labels.max(initial=0) + 1 + np.arange(int(alone.sum()))
    numbers: list[int] = np.unique(labels, return_inverse=True)[1].tolist()
    return numbers


def match(labels: Int64s, previous: Int64s, following: int) -> tuple[Int64s, int]:
    """Give each community the label of the previous one with which it shares most members.

    Pairs are matched in the order of the Jaccard index of their members, each label once; communities without a match
    get new labels.

    Args:
        labels: a partition, `NONE` for no community, `[n]`.
        previous: the previous one with its lasting labels, `[≤ n]`.
        following: the first label that was never used.

    Returns:
        The lasting labels, and the first label that was never used.
    """
    before = np.full(len(labels), NONE, np.int64)
    before[: len(previous)] = previous[: len(labels)]
    kept: dict[int, int] = {}
    both = (labels != NONE) & (before != NONE)
    pairs, shared = np.unique(np.stack([labels[both], before[both]]), axis=1, return_counts=True)
    size = dict(
        zip(*(values.tolist() for values in np.unique(labels[labels != NONE], return_counts=True)), strict=True)
    )
    old = dict(zip(*(values.tolist() for values in np.unique(before[before != NONE], return_counts=True)), strict=True))
    overlaps = [
        (count / (size[new] + old[label] - count), new, label)
        for new, label, count in zip(*pairs.tolist(), shared.tolist(), strict=True)
    ]
    used: set[int] = set()
    for _, new, label in sorted(overlaps, key=lambda overlap: (-overlap[0], overlap[2], overlap[1])):
        if new not in kept and label not in used:
            kept[new] = label
            used.add(label)
    for new in sorted(size):
        if new not in kept:
            kept[new] = following
            following += 1
    lasting = np.array([kept.get(label, NONE) for label in range(int(labels.max(initial=-1)) + 1)] + [NONE], np.int64)
    return lasting[labels], following


def of_memberships(rows: int, user: Int32s, community: Int32s, ids: Sequence[str]) -> Int64s:
    """Return the smallest community of each row that the platform itself names, `NONE` without one, `[n]`.

    A row that is in several belongs to the one with fewest members, as smaller communities are more specific; of
    equally small ones to the first by id.

    Args:
        rows: the number of rows.
        user: the row of each membership, `[m]`.
        community: the community of each membership, `[m]`.
        ids: id of each community.
    """
    labels = np.full(rows, NONE, np.int64)
    if not len(user):
        return labels
    members = np.bincount(community, minlength=len(ids))
    place = np.zeros(len(ids), np.int64)
    place[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    # Of several values for one row the last stays.
    order = np.lexsort((place[community], members[community]))[::-1]
    labels[user[order]] = community[order]
    return labels


def alone(labels: Int64s) -> Int64s:
    """Return the labels with a community of its own for each row that has none, `[n]`."""
    without = labels == NONE
    return np.where(without, labels.max(initial=NONE) + np.cumsum(without), labels)


def participation(offsets: Int64s, neighbours: Int32s, labels: Int64s) -> Float64s:
    """Return how evenly the neighbours of each row lie over communities: 1 − Σ (part in a community)², `[n]`.

    0: all in one community; near 1: evenly over many. Rows with fewer than two neighbours have 0.
    """
    result = np.zeros(len(labels))
    _participate(offsets, neighbours, labels, np.zeros(int(labels.max(initial=0)) + 2), result)
    return result


def modularity(offsets: Int64s, neighbours: Int32s, labels: Int64s) -> float:
    """Return the modularity of a partition of the undirected graph; 0 without edges."""
    degree = np.diff(offsets)
    if not len(neighbours):
        return 0.0
    source = np.repeat(labels, degree)
    inside = float((source == labels[neighbours]).mean())
    totals = np.bincount(labels[degree > 0] + 1, degree[degree > 0]) / len(neighbours)
    return inside - float((totals**2).sum())


@njit(cache=True, nogil=True)
def _participate(offsets: Array, neighbours: Array, labels: Array, count: Array, result: Array) -> None:
    for u in range(len(labels)):
        degree = offsets[u + 1] - offsets[u]
        if degree < 2:
            continue
        squares = 0.0
        for j in range(offsets[u], offsets[u + 1]):
            label = labels[neighbours[j]] + 1
            # (c + 1)² − c² = 2c + 1
            squares += 2 * count[label] + 1
            count[label] += 1
        for j in range(offsets[u], offsets[u + 1]):
            count[labels[neighbours[j]] + 1] = 0
        result[u] = 1 - squares / (degree * degree)
