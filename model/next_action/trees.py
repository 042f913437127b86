"""Gradient-boosted trees (LightGBM), fitted until the validation examples gain nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.next_action.features import FEATURES

Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]
Progress = Callable[[str], None]

ROUNDS = 400
REPORT = 50
PATIENCE = 60
"""Trees without a gain after which fitting stops."""
_TREES: dict[str, Any] = {
    "objective": "binary", "metric": "auc", "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 100,
    "bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.5, "lambda_l2": 5.0, "verbosity": -1,
    "num_threads": 1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip


class Trees:
    """A fitted ensemble.

    Args:
        text: LightGBM's own text of it.

    Raises:
        ValueError: the text is none.
    """

    def __init__(self, text: str) -> None:
        import lightgbm

        try:
            self._booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error)) from error
        self.text = text

    @property
    def number(self) -> int:
        """The number of trees."""
        return int(self._booster.num_trees())

    @property
    def names(self) -> list[str]:
        """The names of the columns that it reads."""
        return list(self._booster.feature_name())

    def score(self, values: Float64s) -> Float64s:
        """Return the log odds among matched examples, `[n]`."""
        if not len(values):
            return np.zeros(0)
        return np.asarray(self._booster.predict(values, raw_score=True, num_threads=1), np.float64)

    def gains(self) -> dict[str, float]:
        """Return the part of the gain of each column, largest first."""
        gain = self._booster.feature_importance("gain")
        order = np.argsort(-gain, kind="stable")
        return {self.names[column]: float(gain[column] / max(gain.sum(), 1e-12)) for column in order.tolist()}


def grow(
    train: tuple[Float64s, Bools], validation: tuple[Float64s, Bools], seed: int = 0, progress: Progress | None = None
) -> Trees:
    """Fit trees.

    Args:
        train: features and labels.
        validation: features and labels by which fitting stops.
        seed: of LightGBM.
        progress: is given a line every `REPORT` trees.
    """
    import lightgbm

    names = list(FEATURES)
    data = lightgbm.Dataset(train[0], train[1].astype(np.float64), feature_name=names)
    judged = lightgbm.Dataset(validation[0], validation[1].astype(np.float64), reference=data)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)

    def report(state: Any) -> None:
        if progress is not None and (state.iteration + 1) % REPORT == 0:
            progress(f"fitting trees: {state.iteration + 1}, validation AUC {state.evaluation_result_list[0][2]:.4f}")

    grown = lightgbm.train({**_TREES, "seed": seed}, data, ROUNDS, valid_sets=[judged], callbacks=[report, stop])
    return Trees(grown.model_to_string(num_iteration=grown.best_iteration))
