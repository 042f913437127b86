"""What the network is measured against: followers, the shrunk past mean, and LightGBM on own features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model.config import OWN
from model.errors import TrainingError
from model.types import Float32s, Float64s

if TYPE_CHECKING:
    from model.train import TrainingSnapshot

_TREES: dict[str, Any] = {
    "objective": "huber", "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 40, "feature_fraction": 0.7,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0, "verbosity": -1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
_ROUNDS = 300
_MANY = 10_000


def past_mean(own: Float32s) -> Float64s:
    """The past mean log reach, shrunk by the graph towards nothing, `[n]`."""
    return own[:, OWN.index("past_mean")].astype(np.float64)


class Trees:
    """LightGBM on own features, trained on the same rows, targets and weights as the network."""

    def __init__(self, snapshots: list[TrainingSnapshot], seed: int = 0) -> None:
        """Train.

        Raises:
            TrainingError: no snapshot has a labelled user.
        """
        import lightgbm

        from model.train import moments, usable_rows

        features, targets, weights = [], [], []
        for snapshot in snapshots:
            rows = usable_rows(snapshot)
            if not rows.any():
                continue
            mean, std = moments(snapshot)
            features.append(snapshot.graph.own[rows])
            targets.append((snapshot.target[rows] - mean) / std)
            weights.append(snapshot.weight[rows])
        if not features:
            raise TrainingError("no snapshot has a labelled user: give a longer stretch of events")
        data = lightgbm.Dataset(np.concatenate(features), np.concatenate(targets), weight=np.concatenate(weights))
        # Threads that wait for one another cost more than they bring where there is little to do.
        threads = 2 if sum(map(len, targets)) >= _MANY else 1
        self._trees = lightgbm.train({**_TREES, "seed": seed, "num_threads": threads}, data, _ROUNDS)

    def score(self, own: Float32s) -> Float64s:
        """Scores `[n]` of own features `[n, 21]`."""
        return np.asarray(self._trees.predict(own), np.float64)
