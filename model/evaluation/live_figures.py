"""Live figures: how well the predictions that were made just before each post match what the post got.

A post is closed when its horizon has passed. Past mean and past sharers of the author, as of the same moment, are
compared on the same posts. All figures are functions of the set of posts: parts of several shards are concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluation.metrics import spearman, tenths
from model.types import Bools, Float64s

POST = np.dtype(
    [
        ("created_at", "<i8"),
        ("content", "<u8"),
        ("model", "<u8"),
        ("score", "<f4"),
        ("people", "<f4"),
        ("reach", "<i4"),
        ("posts", "<i4"),
        ("log_reach", "<i8"),
        ("sharers", "<i4"),
    ]
)
"""A closed post. created_at: time of its create (µs). content: hash of its id, which orders posts of equal time.
model: `model_number` of the artifact that predicted. score: predicted mean log reach. people: predicted reach as
published (persons). reach: distinct sharers within the horizon. Of the author just before the post: posts: number of
earlier posts. log_reach: sum of their log reach, in 1/4096. sharers: distinct past sharers.
"""
LOG_UNIT = 4096
POSTS_MIN = 100
"""Minimum number of closed posts for a figure; with fewer, chance decides."""
MODEL, PAST_MEAN, PAST_SHARERS = "model", "past_mean", "past_sharers"
SCORERS = (MODEL, PAST_MEAN, PAST_SHARERS)
AUTHORS = ("all", "known", "new")
_PRIOR = 2
"""Posts of mean reach that are added to a past mean."""

LivePosts = NDArray[Any]
"""Closed posts `[p]` of type `POST`."""


def model_number(version: str) -> int:
    """Return an artifact's version (12 hex digits) as a number; 0 for an artifact without one."""
    return int(version or "0", 16)


def model_version(number: int) -> str:
    """Return the version of `model_number`."""
    return f"{number:012x}"


def newest(parts: Sequence[LivePosts], limit: int) -> LivePosts:
    """Return the newest posts of several shards, in order of time.

    Args:
        parts: Posts of each shard.
        limit: Maximum number of posts.
    """
    posts = np.concatenate([np.zeros(0, POST), *parts])
    return posts[np.lexsort((posts["content"], posts["created_at"]))][max(0, len(posts) - limit) :]


def past_mean(posts: LivePosts) -> Float64s:
    """Return each author's past mean log reach `[p]`, shrunk by two posts to the mean over all posts given."""
    overall = float(np.log1p(posts["reach"].astype(np.float64)).mean()) if len(posts) else 0.0
    shrunk: Float64s = (posts["log_reach"] / LOG_UNIT + _PRIOR * overall) / (posts["posts"] + _PRIOR)
    return shrunk


def scores(posts: LivePosts) -> dict[str, Float64s]:
    """Return the scores `[p]` of each of `SCORERS`."""
    return {
        MODEL: posts["score"].astype(np.float64),
        PAST_MEAN: past_mean(posts),
        PAST_SHARERS: posts["sharers"].astype(np.float64),
    }


def populations(posts: LivePosts) -> dict[str, Bools]:
    """Return the masks `[p]` of posts by all, known (with an earlier post) and new authors."""
    known: Bools = posts["posts"] > 0
    return dict(zip(AUTHORS, (known | ~known, known, ~known), strict=True))


def calibration(people: Float64s, reach: Float64s) -> tuple[float | None, list[tuple[float, float]]]:
    """Compare predicted with observed persons by tenths of the prediction.

    Args:
        people: Predicted reach `[p]`, in persons.
        reach: Observed reach `[p]`, in persons.

    Returns:
        The mean of |log(predicted ÷ observed)| over the tenths, and the means (predicted, observed) of each. The first
        is None with fewer than `POSTS_MIN` posts. A tenth without a share counts as half a share in all.
    """
    if len(people) < POSTS_MIN:
        return None, []
    means = [(float(people[rows].mean()), max(float(reach[rows].mean()), 0.5 / len(rows))) for rows in tenths(people)]
    errors = [abs(float(np.log(max(predicted, 1e-9) / observed))) for predicted, observed in means]
    return float(np.mean(errors)), means


def figures(posts: LivePosts) -> dict[str, Any]:
    """Return the live figures of closed posts, as a JSON object.

    Keys: `posts` and `known` count posts; `spearman` has a figure per scorer and authors, None with fewer than
    `POSTS_MIN` posts; `calibration` and `tenths` as `calibration` returns them; `models` has, per version that
    predicted some of the posts, their number and Spearman of model and past mean over them.
    """
    posts = newest([posts], len(posts))
    reach = posts["reach"].astype(np.float64)
    by_scorer, masks = scores(posts), populations(posts)
    error, means = calibration(posts["people"].astype(np.float64), reach)
    models: dict[str, Any] = {}
    for number in np.unique(posts["model"]).tolist():
        rows = posts["model"] == number
        models[model_version(number)] = {"posts": int(rows.sum())} | {
            name: _spearman(by_scorer[name], reach, rows) for name in (MODEL, PAST_MEAN)
        }
    return {
        "posts": len(posts),
        "known": int(masks["known"].sum()),
        "spearman": {
            name: {who: _spearman(score, reach, rows) for who, rows in masks.items()}
            for name, score in by_scorer.items()
        },
        "calibration": error,
        "tenths": [[predicted, observed] for predicted, observed in means],
        "models": models,
    }


def _spearman(score: Float64s, reach: Float64s, rows: Bools) -> float | None:
    return spearman(score[rows], reach[rows]) if int(rows.sum()) >= POSTS_MIN else None
