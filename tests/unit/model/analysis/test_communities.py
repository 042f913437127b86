"""Communities on planted groups, labels that last, participation and modularity."""

from __future__ import annotations

import igraph
import numpy as np
import pytest

from model.analysis.adjacency import Adjacency, undirected
from model.analysis.communities import NONE, alone, leiden, match, modularity, of_memberships, participation

GROUPS, SIZE = 6, 30


def planted(seed: int, *, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """An undirected graph of dense groups with a few edges between them, some edges left out."""
    rng = np.random.default_rng(0)
    inside = rng.integers(0, SIZE, (2_000, 2)) + SIZE * rng.integers(0, GROUPS, (2_000, 1))
    pairs = np.unique(np.concatenate([inside, rng.integers(0, GROUPS * SIZE, (200, 2))]), axis=0)
    pairs = pairs[np.random.default_rng(seed).random(len(pairs)) >= missing].astype(np.int32)
    return undirected(*Adjacency.of(GROUPS * SIZE + 1, pairs[:, 0].copy(), pairs[:, 1].copy()).csr())


def test_planted_groups_are_found() -> None:
    """Each group is one community, a row without neighbours has none, and modularity is igraph's."""
    graph = planted(0)
    labels = leiden(*graph)
    truth = np.repeat(np.arange(GROUPS), SIZE)
    assert len(set(zip(labels[:-1].tolist(), truth.tolist(), strict=True))) == GROUPS
    assert labels[-1] == NONE
    sources = np.repeat(np.arange(len(graph[0]) - 1), np.diff(graph[0]))
    other = igraph.Graph(edges=[(u, v) for u, v in zip(sources, graph[1], strict=True) if u < v])
    assert modularity(*graph, labels) == pytest.approx(other.modularity(labels[:-1].tolist()))


def test_labels_last() -> None:
    """When a tenth of the edges changes, communities keep their labels, whatever the method numbers them."""
    labels, following = match(leiden(*planted(1, missing=0.1)), np.zeros(0, np.int64), 0)
    fresh = leiden(*planted(2, missing=0.1), labels)
    again, _ = match(GROUPS - 1 - fresh, labels, following)
    assert (again == labels)[:-1].mean() > 0.92


def test_a_split_keeps_the_larger_part() -> None:
    """The larger part of a community keeps its label, the smaller gets one that was never used."""
    before, after = np.zeros(10, np.int64), np.array([5] * 6 + [2] * 4)
    labels, following = match(after, before, 7)
    assert labels.tolist() == [0] * 6 + [7] * 4
    assert following == 8


def test_participation() -> None:
    """Neighbours in one community give 0, evenly over two 1/2; a single neighbour gives 0."""
    pairs = np.array([(0, 1), (0, 2), (3, 1), (3, 4)], np.int32)
    graph = undirected(*Adjacency.of(5, pairs[:, 0].copy(), pairs[:, 1].copy()).csr())
    assert participation(*graph, np.array([0, 1, 1, 0, 2])).tolist() == [0, 0, 0, 0.5, 0]


def test_memberships_name_the_smallest() -> None:
    """A user of several communities of the platform belongs to the one with fewest members."""
    user, community = np.array([0, 1, 0, 2], np.int32), np.array([3, 3, 5, 3], np.int32)
    ids = ["", "", "", "small", "", "large"]
    assert of_memberships(4, user, community, ids).tolist() == [5, 3, 3, NONE]


def test_of_equally_small_communities_the_first_by_id() -> None:
    """Rows of communities depend on the order of arrival, ids do not."""
    user, first, second = np.zeros(2, np.int32), np.array([0, 1], np.int32), np.array([1, 0], np.int32)
    assert of_memberships(1, user, first, ["b", "a"]).tolist() == of_memberships(1, user, second, ["b", "a"]).tolist()
    assert of_memberships(1, user, first, ["b", "a"]).tolist() == [1]


def test_rows_without_a_community_are_alone() -> None:
    """Modularity does not count edges between them as inside: each is a community of one."""
    pairs = np.array([(0, 1), (2, 3), (3, 4)], np.int32)
    graph = undirected(*Adjacency.of(5, pairs[:, 0].copy(), pairs[:, 1].copy()).csr())
    labels = alone(np.array([4, 4, NONE, NONE, 2]))
    assert labels.tolist() == [4, 4, 5, 6, 2]
    other = igraph.Graph(edges=pairs.tolist())
    assert modularity(*graph, labels) == pytest.approx(other.modularity([0, 0, 1, 2, 3]))
