"""Ego networks of exposed users, sampled by random walks with restart, as DeepInf (Qiu and others, 2018) does it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s
from model.next_action.examples import Examples
from model.next_action.features import OF_RECEIVER, followed, receiver_features
from model.next_action.timeline import Timeline, stamp

Array = NDArray[Any]
Float32s = NDArray[np.float32]

SIZE = 50
RESTART = 0.8
STEPS = 5_000
"""Most steps of a walk: small components have fewer than `SIZE` users."""
DIMENSIONS = 32
NORM_LEAST = 1e-6


class EgoNetworks(NamedTuple):
    """Ego networks of examples.

    Attributes:
        users: users of each network, the ego first, −1 where there are fewer, `[n, SIZE]`.
        active: whether each of them acted on the post before the moment, `[n, SIZE]`.
        values: columns `OF_RECEIVER` of each of them at the moment, `[n, SIZE, 10]`.
        offsets: where the edges of each network begin, `[n + 1]`.
        edges: follows between them, by their places, in both directions, `[m, 2]`.
    """

    users: Int32s
    active: NDArray[np.bool_]
    values: Float32s
    offsets: Int64s
    edges: NDArray[np.uint8]


def sample(made: Timeline, examples: Examples, seed: int = 0) -> EgoNetworks:
    """Sample the ego network of each example.

    Args:
        made: the index.
        examples: posts, users, moments.
        seed: of the walks.
    """
    count = len(examples.post)
    order = np.argsort(examples.post, kind="stable")
    post, user, at, _ = examples.of(order)
    users, active = np.full((count, SIZE), -1, np.int32), np.zeros((count, SIZE), np.bool_)
    _walk(made, post, user, at, np.random.default_rng(seed), users, active)
    values = np.zeros((count, SIZE, len(OF_RECEIVER)), np.float32)
    receiver_features(made, users, at, values)
    offsets = np.zeros(count + 1, np.int64)
    _edges(made, users, at, offsets, np.empty((0, 2), np.uint8))
    np.cumsum(offsets, out=offsets)
    edges = np.empty((int(offsets[-1]), 2), np.uint8)
    _edges(made, users, at, offsets, edges)
    back = np.empty(count, np.int64)
    back[order] = np.arange(count)
    return of(EgoNetworks(users, active, values, offsets, edges), back)


def of(networks: EgoNetworks, chosen: Int64s) -> EgoNetworks:
    """Return some of the networks, by their numbers."""
    size = np.diff(networks.offsets)[chosen]
    offsets = np.concatenate([[0], np.cumsum(size)])
    places = np.repeat(networks.offsets[chosen] - offsets[:-1], size) + np.arange(int(offsets[-1]))
    users, active, values = networks.users[chosen], networks.active[chosen], networks.values[chosen]
    return EgoNetworks(users, active, values, offsets, networks.edges[places])


def structure(made: Timeline, at: int) -> Float32s:
    """Return an embedding of each user by its place among the follows at a moment (µs), `[rows, DIMENSIONS]`.

    The leading singular vectors of the normalized adjacency, direction aside.
    """
    from scipy import sparse
    from scipy.sparse.linalg import svds

    live = (made.out_since < at) & (at <= made.out_until)
    source = np.repeat(np.arange(made.rows), np.diff(made.out_offsets))[live]
    ones = np.ones(len(source), np.float64)
    graph = sparse.csr_matrix((ones, (source, made.out_target[live])), (made.rows, made.rows))
    graph = graph + graph.T
    scale = sparse.diags(np.maximum(np.asarray(graph.sum(1)).ravel(), 1) ** -0.5)
    dimensions = min(DIMENSIONS, made.rows - 1)
    vectors, sizes, _ = svds((scale @ graph @ scale).tocsc(), dimensions, random_state=0)
    found = np.zeros((made.rows, DIMENSIONS), np.float32)
    found[:, :dimensions] = vectors * np.sqrt(np.abs(sizes))
    return found


def instance_norm(values: Float32s, present: NDArray[np.bool_]) -> Float32s:
    """Return values with mean 0 and variance 1 over the users of each network, by column, `[n, SIZE, d]`."""
    weight = present[:, :, None].astype(np.float32)
    number = np.maximum(weight.sum(1, keepdims=True), 1)
    centred = (values - (values * weight).sum(1, keepdims=True) / number) * weight
    spread = np.sqrt((centred**2).sum(1, keepdims=True) / number)
    normed: Float32s = (centred / (spread + NORM_LEAST)).astype(np.float32)
    return normed


@njit(cache=True, nogil=True)
def _neighbour(made: Timeline, user: int, at: int, random: Any) -> int:
    """Return a random user that follows or is followed at a moment, −1 if the draw finds none."""
    out, into = made.out_offsets[user], made.in_offsets[user]
    following = made.out_offsets[user + 1] - out
    number = following + made.in_offsets[user + 1] - into
    if number == 0:
        return -1
    place = random.integers(0, number)
    if place < following:
        return int(made.out_target[out + place]) if followed(made, out + place, at) else -1
    edge = into + place - following
    return int(made.in_source[edge]) if made.in_since[edge] < at <= made.in_until[edge] else -1


@njit(cache=True, nogil=True)
def _walk(
    made: Timeline, posts: Array, egos: Array, moments: Array, random: Any, users: Array, active: Array
) -> None:  # fmt: skip
    rows = len(made.out_offsets) - 1
    acted, acted_at = np.full(rows, -1, np.int32), np.zeros(rows, np.int64)
    seen, starts = np.full(rows, -1, np.int64), np.empty(rows, np.int32)
    for i in range(len(posts)):
        post, ego, at = posts[i], egos[i], moments[i]
        if i == 0 or posts[i - 1] != post:
            stamp(made, post, acted, acted_at)
        users[i, 0], seen[ego], starts[0] = ego, i, ego
        count = begins = 1
        for edge in range(made.out_offsets[ego], made.out_offsets[ego + 1]):
            other = made.out_target[edge]
            if acted[other] == post and acted_at[other] < at and followed(made, edge, at):
                starts[begins] = other
                begins += 1
        place = ego
        for _ in range(STEPS):
            # Every walk begins at the ego or at one of its active users, so that these are in the network.
            if place < 0 or random.random() < RESTART:
                place = starts[random.integers(0, begins)]
            else:
                place = _neighbour(made, place, at, random)
            if place >= 0 and seen[place] != i:
                users[i, count], seen[place] = place, i
                count += 1
                if count == SIZE:
                    break
        for j in range(count):
            active[i, j] = acted[users[i, j]] == post and acted_at[users[i, j]] < at


@njit(cache=True, nogil=True)
def _edges(made: Timeline, users: Array, moments: Array, offsets: Array, edges: Array) -> None:
    """Fill the edges of each network; without room only count them, into `offsets[network + 1]`."""
    rows = len(made.out_offsets) - 1
    seen, place = np.full(rows, -1, np.int64), np.zeros(rows, np.int64)
    for i in range(len(users)):
        for j in range(SIZE):
            if users[i, j] >= 0:
                seen[users[i, j]], place[users[i, j]] = i, j
        count = 0
        for j in range(SIZE):
            user = users[i, j]
            if user < 0:
                break
            for edge in range(made.out_offsets[user], made.out_offsets[user + 1]):
                other = made.out_target[edge]
                if seen[other] != i or not followed(made, edge, moments[i]):
                    continue
                if len(edges):
                    begin = offsets[i] + count
                    edges[begin, 0], edges[begin, 1] = j, place[other]
                    edges[begin + 1, 0], edges[begin + 1, 1] = place[other], j
                count += 2
        if not len(edges):
            offsets[i + 1] = count
