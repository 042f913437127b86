"""Baselines of the network: past mean, LightGBM on own and on neighbours' features, and the network without edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from model.config import OWN, OWN_SCALE, USER
from model.errors import TrainingError
from model.types import LEAST, PRIOR_POSTS, Float32s, Float64s, GraphInput

if TYPE_CHECKING:
    from model.training.fitting import TrainingSnapshot

_TREES: dict[str, Any] = {
    "objective": "huber", "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 40, "feature_fraction": 0.7,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0, "verbosity": -1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
_ROUNDS = 300
_ROWS_FOR_THREADS = 10_000
_READ = [
    OWN.index(name) for name in ("past_mean", "sharers", "received_long", "created", "made", "authors", "followers")
]
"""Features of which neighbours' sums and means are computed."""
_BETWEEN_USERS = ("follows", "interacts")

Features = Callable[[GraphInput], Float32s]


def past_mean(own: Float32s, towards: float = 0.0) -> Float64s:
    """Return the past mean log reach `[n]`, shrunk by two posts of reach `towards`, from `GraphInput.absolute`.

    A user without posts gets `towards`.
    """
    buckets = np.rint(own[:, OWN.index("created")] / OWN_SCALE[OWN.index("created")]).astype(np.int64)
    known = own[:, OWN.index("past_mean")].astype(np.float64)
    shrunk: Float64s = known + PRIOR_POSTS * towards / (LEAST[buckets] + PRIOR_POSTS)
    return shrunk


def own_features(graph: GraphInput) -> Float32s:
    """Return the own features in their own scale `[n_users, 21]`."""
    return graph.absolute


def with_neighbours(graph: GraphInput) -> Float32s:
    """Return own features, and sum and mean of the neighbours' over one and two hops of each relation between users."""
    absolute = graph.absolute
    users, parts = len(absolute), [absolute]
    for relation in _BETWEEN_USERS:
        source, target = graph.edges[relation]
        number = np.bincount(target, minlength=users)[:, None]
        reached = absolute[:, _READ].astype(np.float64)
        for _ in range(2):
            total = np.stack([np.bincount(target, column[source], users) for column in reached.T], axis=1)
            reached = total / np.maximum(number, 1)
            parts += [np.log1p(np.maximum(total, 0)).astype(np.float32), reached.astype(np.float32)]
    return np.concatenate(parts, axis=1)


def blind(graph: GraphInput) -> GraphInput:
    """Return the same features without edges; on it, the network is an MLP."""
    return replace(graph, edges={name: edge[:, :0] for name, edge in graph.edges.items()})


class Trees:
    """LightGBM, trained on the same rows, targets and weights as the network."""

    def __init__(self, snapshots: list[TrainingSnapshot], seed: int = 0, features: Features = own_features) -> None:
        """Train.

        Args:
            snapshots: Labelled snapshots.
            seed: Seed of LightGBM.
            features: Computes the features of all users of a graph.

        Raises:
            TrainingError: no snapshot has a labelled user.
        """
        import lightgbm

        from model.training.fitting import moments, usable_rows

        rows_of, targets, weights = [], [], []
        for snapshot in snapshots:
            rows = usable_rows(snapshot)
            if not rows.any():
                continue
            mean, std = moments(snapshot)
            rows_of.append(features(snapshot.graph)[rows])
            targets.append((snapshot.target[rows] - mean) / std)
            weights.append(snapshot.weight[rows])
        if not rows_of:
            raise TrainingError("no snapshot has a labelled user: give a longer stretch of events")
        data = lightgbm.Dataset(np.concatenate(rows_of), np.concatenate(targets), weight=np.concatenate(weights))
        # On small data, synchronisation costs more than a second thread gains.
        threads = 2 if sum(map(len, targets)) >= _ROWS_FOR_THREADS else 1
        self._trees = lightgbm.train({**_TREES, "seed": seed, "num_threads": threads}, data, _ROUNDS)

    def score(self, features: Float32s) -> Float64s:
        """Return the scores `[n]` of features `[n, F]`."""
        return np.asarray(self._trees.predict(features), np.float64)


def blinded(snapshots: list[TrainingSnapshot]) -> list[TrainingSnapshot]:
    """Return the snapshots without their edges."""
    return [replace(snapshot, graph=blind(snapshot.graph)) for snapshot in snapshots]


FEATURE_GROUPS: dict[str, tuple[str, ...]] = {
    "past reach": ("past_mean", "recent_mean", "last"),
    "shares received": ("sharers", "received_short", "received_long", "via", "delay_received"),
    "contents created": ("created", "created_long", "cold"),
    "own sharing": ("made", "authors", "made_short", "made_long", "delay_made"),
    "times since": ("since_created", "since_received", "since_made"),
    "followers, following": ("followers", "following"),
}
"""Features that are left out together."""
NEIGHBOURS = "neighbours"


def without(graph: GraphInput, group: str) -> GraphInput:
    """Return the graph without a group of features, own and propagated; for `neighbours`, without its edges."""
    if group == NEIGHBOURS:
        return blind(graph)
    from model.config import PROPAGATED

    names = set(FEATURE_GROUPS[group])
    columns = [OWN.index(name) for name in names]
    own, features = graph.own.copy(), graph.features.copy()
    own[:, columns] = features[:, columns] = 0
    # The propagated counters are removed with the own features that are computed from them.
    read = names | ({"received"} if "sharers" in names else set())
    users = graph.x[USER].copy()
    users[:, [column for column, name in enumerate(PROPAGATED[USER]) if name in read]] = 0
    return replace(graph, own=own, features=features, x={**graph.x, USER: users})
