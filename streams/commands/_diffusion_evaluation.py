"""Probabilities of edges on held-out posts: which of the users who first see a post share it.

The first seventy percent of the posts teach, the others judge. An exposure to a post that teaches counts only if its
three days end before the first post that judges.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Int32s, Int64s, Mutation
from model.analysis import edge_model
from model.analysis.adjacency import Adjacency
from model.analysis.exposures import Activity, Exposures, History, first_exposures
from model.evaluation.metrics import auc, log_loss
from model.next_action.timeline import FOREVER
from streams.commands._social_history import social_history
from streams.errors import InputError
from streams.messages.headers import rfc3339

Float64s = NDArray[np.float64]

TEACH = 0.7
MOST = 10_000_000


@dataclass(frozen=True)
class KindResult:
    """How one kind of probability did: log loss, area under the ROC curve, mean probability."""

    name: str
    log_loss: float
    auc: float
    mean: float


@dataclass(frozen=True)
class Evaluation:
    """What was judged.

    Attributes:
        since: time of the first post that judges (RFC 3339).
        exposures: the number of first exposures to these posts.
        shared: the part of them that a share followed.
        kinds: the kinds of probability; the last one is what the analyst learns.
    """

    since: str
    exposures: int
    shared: float
    kinds: list[KindResult]


def evaluate(events: Iterable[Mutation]) -> Evaluation:
    """Return how each kind of probability did.

    Raises:
        InputError: there is too little to learn from or to judge on.
    """
    history, follows = arrays(list(events))
    if not len(history.author):
        raise InputError("there are no posts; give a longer event file")
    cut = int(np.quantile(history.created_at, TEACH))
    activity = Activity(history, follows)
    model = edge_model.fit(activity, first_exposures(history, follows, 0, cut))
    end = max(history.created_at.max(), history.shared_at.max(initial=0))
    judged = first_exposures(history, follows, cut, int(end), MOST)
    if model is None or not 0 < judged.shared.sum() < len(judged.shared):
        raise InputError(
            f"fewer than {edge_model.LEAST_SHARES} shares by followers who saw a post teach, or none judges; give a "
            "longer event file, with follows"
        )
    taught = first_exposures(history, follows, 0, cut, MOST)
    following = np.diff(follows[0])[judged.receiver]
    kinds = {
        "constant": np.full(len(judged.shared), model.shared),
        "weighted: 1 / users followed": 1.0 / np.maximum(following, 1),
        "past rate of the pair": _pair_rate(taught, judged, activity.rows, model.shared),
        "learned": edge_model.predict(model, activity, judged),
    }
    results = [
        KindResult(name, log_loss(p, judged.shared), auc(p, judged.shared), float(p.mean()))
        for name, p in kinds.items()
    ]
    return Evaluation(rfc3339(cut), len(judged.shared), float(judged.shared.mean()), results)


def arrays(events: list[Mutation]) -> tuple[History, tuple[Int64s, Int32s]]:
    """Return the posts and shares in force, and the live follows, with users as rows."""
    society = social_history(events)
    live = society.follows.until == FOREVER
    source = np.repeat(np.arange(len(society.users), dtype=np.int32), np.diff(society.follows.offsets))
    return society.history, Adjacency.of(len(society.users), source[live], society.follows.target[live]).csr()


def _pair_rate(taught: Exposures, judged: Exposures, rows: int, other: float) -> Float64s:
    """Return the part of past exposures of each pair that a share followed; `other` for pairs without any."""
    keys = taught.receiver.astype(np.int64) * rows + taught.sender
    pairs, inverse = np.unique(keys, return_inverse=True)
    rate = np.bincount(inverse, taught.shared) / np.maximum(np.bincount(inverse), 1)
    wanted = judged.receiver.astype(np.int64) * rows + judged.sender
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    return np.where(pairs[place] == wanted, rate[place], other)
