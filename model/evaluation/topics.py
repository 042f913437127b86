"""How much topics add to the history of authors: reach of each post, predicted from what was known before it.

Every post of a stream is predicted once, in order of time. Features are counts and mean log reach of earlier posts,
with the shares until then; models are trained on posts whose horizon has passed, again for each block of time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from model.errors import TrainingError
from model.evaluation.metrics import Figure, resampled, spearman
from model.types import Bools, Float64s, Int64s

NEWEST = 200
"""Earlier posts of an author or a topic that count, newest first."""
PRIOR = 1.0
"""Weight of the mean of all posts in a mean, in posts."""
AUTHOR_PRIOR, TOPIC_PRIOR = 2.0, 10.0
"""Posts of the level that an author's mean, and posts without excess that a topic's excess is averaged with."""
_AGES = np.array([1 / 150, 1 / 60, 1 / 30, 1 / 15, 0.12, 1 / 6, 1 / 3, 2 / 3, 1.0])
"""Parts of the horizon at which the growth of posts is measured."""
DRAWS = 200
BLOCKS, FIRST = 7, 0.3
"""Blocks of time that are predicted, and the fraction of posts before the first."""
_TREES: dict[str, Any] = {
    "objective": "regression", "learning_rate": 0.04, "num_leaves": 15, "min_data_in_leaf": 30, "verbosity": -1,
    "num_threads": 1, "deterministic": True, "force_row_wise": True, "seed": 0,
}  # fmt: skip
_ROUNDS = 150
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Posts:
    """Posts in order of time.

    Attributes:
        time: Creation (µs), `[n]`.
        author: Number of the author, `[n]`.
        topics: Numbers of the topics of each.
        shares: Times (µs, ascending) of the shares of each within the horizon.
        end: End of the stream (µs).
        horizon: The horizon (µs).
    """

    time: Int64s
    author: Int64s
    topics: list[tuple[int, ...]]
    shares: list[Int64s]
    end: int
    horizon: int

    @property
    def reach(self) -> Int64s:
        """Sharers of each post within the horizon, `[n]`."""
        return np.array([len(times) for times in self.shares], np.int64)


@dataclass
class History:
    """What was known before each post, `[n]` each: number, sum of log reach and age (log days) of the newest."""

    count: Float64s
    log_reach: Float64s
    age: Float64s

    def mean(self, prior: Float64s | float, weight: float = PRIOR) -> Float64s:
        """Return the mean log reach with a prior, `[n]`."""
        return np.asarray((self.log_reach + weight * np.asarray(prior)) / (self.count + weight), np.float64)


def histories(posts: Posts) -> dict[str, History]:
    """Return the history of each post's author, of its topics, and of its author on them."""
    n = len(posts.time)
    found = {name: History(np.zeros(n), np.zeros(n), np.full(n, 9.0)) for name in ("author", "topic", "both")}
    earlier: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i in range(n):
        time, author, topics = int(posts.time[i]), int(posts.author[i]), posts.topics[i]
        keys: dict[str, list[tuple[Any, ...]]] = {
            "author": [("author", author)],
            "topic": [("topic", topic) for topic in topics],
            "both": [("both", author, topic) for topic in topics],
        }
        for name, own in keys.items():
            before = sorted({k for key in own for k in earlier[key][-NEWEST:]})
            if before:
                known = [np.searchsorted(posts.shares[k], time) for k in before]
                history = found[name]
                history.count[i], history.log_reach[i] = len(before), np.log1p(known).sum()
                history.age[i] = np.log1p((time - int(posts.time[before[-1]])) / _DAY_US)
            for key in own:
                earlier[key].append(i)
    return found


def excesses(posts: Posts, closed: Bools, level: float) -> tuple[Float64s, Float64s]:
    """Return the mean of each post's author, and by how much earlier posts on its topics exceeded theirs, `[n]` each.

    A young post counts as a part of one, by the growth of closed posts. A post exceeds the mean of its author as known
    when the post was made. Both are shrunk, the mean to the level, the excess to 0.

    Args:
        posts: The posts.
        closed: Which of them the growth is measured on `[n]`.
        level: Mean log reach of these.
    """
    shares = [times.tolist() for times in posts.shares]
    final = sum(np.log1p(len(shares[k])) for k in np.flatnonzero(closed))
    shown = [
        sum(np.log1p(bisect_left(shares[k], posts.time[k] + age)) for k in np.flatnonzero(closed)) / max(final, 1e-9)
        for age in _AGES * posts.horizon
    ]
    ages, parts = np.append(0.0, _AGES * posts.horizon), np.append(0.0, shown)
    means, found = np.full(len(shares), level), np.zeros(len(shares))
    earlier: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, (time, author) in enumerate(zip(posts.time.tolist(), posts.author.tolist(), strict=True)):
        own = earlier["author", author][-NEWEST:]
        on_topic = sorted({k for topic in posts.topics[i] for k in earlier["topic", topic][-NEWEST:]})
        known = np.log1p([bisect_left(shares[k], time) for k in own + on_topic])
        part = np.interp(time - posts.time[own + on_topic], ages, parts)
        means[i] = (known[: len(own)].sum() + AUTHOR_PRIOR * level) / (part[: len(own)].sum() + AUTHOR_PRIOR)
        known, part = known[len(own) :], part[len(own) :]
        found[i] = (known - part * means[on_topic]).sum() / (part.sum() + TOPIC_PRIOR)
        for key in (("author", author), *(("topic", topic) for topic in posts.topics[i])):
            earlier[key].append(i)
    return means, found


def predictions(posts: Posts, of: dict[str, History]) -> tuple[Bools, dict[str, Float64s]]:
    """Return which posts are predicted `[n]`, and the scores `[n]` of every predictor by name.

    Raises:
        TrainingError: There are too few posts, or none has a topic.
    """
    if len(posts.time) < 200 or not any(posts.topics):
        raise TrainingError("topics need at least 200 posts, some with topics: is `topics` a column of the file?")
    logs = np.log1p(posts.reach)
    closed = posts.time < np.quantile(posts.time, FIRST) - posts.horizon
    level = float(logs[closed].mean()) if closed.any() else 0.0
    author, topic = of["author"].mean(level), of["topic"].mean(level)
    served = of["both"].mean(author, 5.0)
    grown, excess = excesses(posts, closed, level)
    alone = np.stack([of["author"].count, author, of["author"].age], axis=1)
    both = np.stack([of["both"].count, served, of["both"].age], axis=1)
    level_of_topic = np.stack([of["topic"].count, topic, of["topic"].age], axis=1)
    cuts = np.quantile(posts.time, np.linspace(FIRST, 1, BLOCKS + 1))
    scored = (posts.time >= cuts[0]) & (posts.time <= posts.end - posts.horizon)
    return scored, {
        "constant": np.full(len(logs), level),
        "mean of the topic": topic,
        "mean of the author": author,
        "mean of the author and of the author on the topic (served)": served,
        "mean of the author, young posts by their growth": grown,
        "mean of the author, young posts by their growth + excess of the topic": grown + excess,
        "mean of the author + 0.4 of the topic's": author + 0.4 * (of["topic"].mean(level, 10.0) - level),
        "LightGBM: author": _trees(posts, cuts, logs, alone),
        "LightGBM: author, author on the topic": _trees(posts, cuts, logs, np.hstack([alone, both])),
        "LightGBM: author, author on the topic, topic": _trees(
            posts, cuts, logs, np.hstack([alone, both, level_of_topic])
        ),
    }


def _trees(posts: Posts, cuts: Float64s, logs: Float64s, features: Float64s) -> Float64s:
    """Predict block by block, trained on the posts whose horizon ends before the block."""
    import lightgbm

    predicted = np.zeros(len(logs))
    for low, high in pairwise(cuts):
        train, test = posts.time < low - posts.horizon, (posts.time >= low) & (posts.time <= high)
        if test.any() and train.any():
            grown = lightgbm.train(_TREES, lightgbm.Dataset(features[train], logs[train]), _ROUNDS)
            predicted[test] = np.asarray(grown.predict(features[test]))
    return predicted


def evaluate(posts: Posts, draws: int = DRAWS) -> dict[str, Any]:
    """Return Spearman's correlation of every predictor with reach over all predicted posts, and of differences.

    Intervals are 95 %, by bootstrap over authors.
    """
    of = histories(posts)
    scored, scores = predictions(posts, of)
    reach = posts.reach[scored].astype(np.float64)
    authors, author = np.unique(posts.author[scored], return_inverse=True)
    rows = [np.flatnonzero(author == k) for k in range(len(authors))]
    samples = [np.concatenate([rows[k] for k in drawn]) for drawn in resampled(len(authors), draws)]
    figures = {}
    for name, score in scores.items():
        chosen = score[scored]
        value = spearman(chosen, reach)
        figures[name] = Figure.of(value, np.array([spearman(chosen[one], reach[one]) for one in samples]))
    simple, trees = "mean of the author", "LightGBM: author"
    pairs = [(name, simple if "LightGBM" not in name else trees) for name in figures if name not in (simple, trees)]
    pairs.append(("LightGBM: author, author on the topic, topic", simple))
    grown = "mean of the author, young posts by their growth"
    pairs.append((f"{grown} + excess of the topic", grown))
    return {
        "posts": len(posts.time),
        "predicted": int(scored.sum()),
        "authors": len(authors),
        "with_history_on_topic": round(float((of["both"].count[scored] > 0).mean()), 4),
        "scorers": [{"name": name, "spearman": figure.row()} for name, figure in figures.items()],
        "paired": [
            {"name": name, "minus": other, "spearman": figures[name].minus(figures[other]).row()}
            for name, other in pairs
            if name != "constant"
        ],
    }
