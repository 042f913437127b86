"""Prequential evaluation: every post after the cut is scored from the state just before it.

The events go through the same shard as in production, in steps that end just before the next evaluated post. The
weights stay those of the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphstate.types import Mutation
from model.artifact import Artifact
from model.config import OWN
from model.evaluation.metrics import Figure, spearman_figure
from model.types import Float64s, GraphInput, Int64s
from streams.offline.evaluation import EvaluationSet, Progress
from streams.offline.evaluation_replay import ShardReplay, open_replay
from streams.shard.shard import Shard

STEPS = 4_000
"""Maximum number of steps; with more posts, those of one step are scored from the state before the first of them."""
_DAY = 86_400_000_000
_PAST_MEAN = OWN.index("past_mean")
_CURVES = 4
_CURVE_POINTS = 300

FRESH, FROZEN, PAST = "state just before", "state at the cut", "past mean just before"


@dataclass(frozen=True)
class Curve:
    """Predicted reach of one user over time, and the reach of the user's posts.

    Attributes:
        user: Id of the user.
        times: Times of the predictions (µs).
        reach: Predicted reach at these times, in distinct sharers.
        posts: Time (µs) and reach of each post after the cut.
    """

    user: str
    times: list[int]
    reach: list[float]
    posts: list[tuple[int, int]]


@dataclass
class PrequentialResult:
    """Scores of every evaluated post.

    Attributes:
        scores: Scores `[p]` by scorer.
        author: Author rows `[p]`.
        day: Days since the cut `[p]`.
        reach: Distinct sharers within the horizon `[p]`.
        steps: Number of steps of the replay.
        curves: Predictions over time of the watched users.
    """

    scores: dict[str, Float64s]
    author: Int64s
    day: Int64s
    reach: Float64s
    steps: int
    curves: list[Curve] = field(default_factory=list)

    def figures(self) -> list[dict[str, Any]]:
        """Return Spearman by scorer, over posts and over users and days (means of a user's posts of a day)."""
        _, cell = np.unique(self.author * (int(self.day.max()) + 1) + self.day, return_inverse=True)
        number = np.bincount(cell)

        def mean(values: Float64s) -> Float64s:
            return np.bincount(cell, values) / number

        rows = []
        for name, score in self.scores.items():
            per_post, per_step = spearman_figure(score, self.reach), spearman_figure(mean(score), mean(self.reach))
            rows.append({"scorer": name, "per_post": per_post.row(), "per_user_day": per_step.row()})
        return rows

    def fresh_minus_frozen(self) -> Figure:
        """Return the gain from fresh features over those at the cut: paired difference of Spearman over posts."""
        fresh, frozen = (spearman_figure(self.scores[name], self.reach) for name in (FRESH, FROZEN))
        return fresh.minus(frozen)


def stranger_score(artifact: Artifact) -> float:
    """Return the mean log reach that an artifact predicts for a user without any event."""
    from model.network.pyg_reference import reference

    config = artifact.config
    empty = GraphInput.scaled(
        config,
        {name: np.zeros((0, len(names)), np.int32) for name, names in config.propagated.items()},
        {name: np.zeros((2, 0), np.int64) for name, _, _ in config.relations},
        np.zeros((0, len(config.own)), np.int32),
    )
    return float(reference(artifact.weights, config, empty.with_strangers())[2][0])


def breakouts(users: EvaluationSet, sharers: Float64s) -> list[str]:
    """Return the users outside the top tenth by past sharers `[n]` with the most shared posts after the cut."""
    outside = sharers <= np.quantile(sharers, 0.9)
    total = np.where(outside, users.reach * users.number, -1)
    return [users.ids[row] for row in np.argsort(-total, kind="stable")[:_CURVES].tolist() if total[row] > 0]


def prequential(
    events: Sequence[Mutation],
    users: EvaluationSet,
    artifact: Artifact,
    watched: Sequence[str] = (),
    steps: int = STEPS,
    progress: Progress = lambda _line: None,
) -> PrequentialResult:
    """Replay the events up to the last evaluated post, and score each post from the state before it.

    Args:
        events: Events in order of time.
        users: Users and posts to evaluate.
        artifact: Artifact that scores.
        watched: Ids of users whose predictions are recorded at every step.
        steps: Maximum number of steps.
        progress: Receives one line per batch before the cut, and one per 200 steps after it.
    """
    cut, rows = users.protocol.cut, users.evaluated_posts
    times, author, reach = (values[rows] for values in (users.posts.time, users.posts.author, users.posts.reach))
    reader = _ScoreReader(artifact, [users.authors[row] for row in author.tolist()], list(watched))
    ends = np.unique(times)
    ends = ends[:: -(-len(ends) // steps)]
    with open_replay(artifact, events) as replay:
        replay.feed_before(cut + 1, lambda done: progress(f"replayed {done:,} events up to the cut"))
        reader.read_frozen(replay.shard)
        _read_steps(replay, reader, times, ends, progress)
    curves = [
        Curve(
            user,
            *reader.curve(user),
            [
                (int(time), int(sharers))
                for time, row, sharers in zip(times, author, reach, strict=True)
                if users.authors[row] == user
            ],
        )
        for user in watched
    ]
    return PrequentialResult(reader.scores, author, (times - cut) // _DAY, reach.astype(np.float64), len(ends), curves)


def _read_steps(replay: ShardReplay, reader: _ScoreReader, times: Int64s, ends: Int64s, progress: Progress) -> None:
    """Feed the events of each step, which ends before a time of `ends` (µs), and score the posts that follow it."""
    begin = 0
    for number, end in enumerate(ends.tolist(), 1):
        replay.feed_before(end)
        until = int(np.searchsorted(times, ends[number])) if number < len(ends) else len(times)
        reader.read(replay.shard, range(begin, until), end)
        begin = until
        if number % 200 == 0 or number == len(ends):
            progress(f"step {number:,} of {len(ends):,}: {until:,} posts scored from the state before them")


class _ScoreReader:
    """Scores read from a shard, of the author of each post and of the watched users.

    Attributes:
        scores: Scores `[p]` by scorer.
    """

    def __init__(self, artifact: Artifact, authors: list[str], watched: list[str]) -> None:
        self._authors = authors
        self._watched = watched
        self._stranger = stranger_score(artifact)
        self._points: list[tuple[int, list[float]]] = []
        self.scores = {name: np.zeros(len(authors)) for name in (FRESH, FROZEN, PAST)}

    def _score_of(self, shard: Shard) -> Callable[[str], float]:
        users, score = shard.graph.users, shard.engine.score

        def score_of(user: str) -> float:
            row = users.index.get(user)
            return self._stranger if row is None or not users.live(row) else float(score[row])

        return score_of

    def read_frozen(self, shard: Shard) -> None:
        """Score the author of every post from the state at the cut."""
        score_of = self._score_of(shard)
        self.scores[FROZEN][:] = [score_of(user) for user in self._authors]

    def read(self, shard: Shard, posts: range, time: int) -> None:
        """Score the authors of some posts from the current state, which holds the events before `time` (µs)."""
        score_of, users = self._score_of(shard), shard.graph.users
        for post in posts:
            self.scores[FRESH][post] = score_of(self._authors[post])
            row = users.index.get(self._authors[post])
            if row is not None and users.live(row):
                self.scores[PAST][post] = shard.population.inputs(users.own[row : row + 1])[0, _PAST_MEAN]
        self._points.append((time, [score_of(user) for user in self._watched]))

    def curve(self, user: str) -> tuple[list[int], list[float]]:
        """Return times (µs) and predicted reach (distinct sharers) of a watched user, thinned to at most 600 points."""
        column = self._watched.index(user)
        points = self._points[:: max(1, len(self._points) // _CURVE_POINTS)]
        return [time for time, _ in points], [float(np.expm1(max(scores[column], 0.0))) for _, scores in points]
