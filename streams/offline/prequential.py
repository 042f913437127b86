"""Prequential evaluation: every post after the cut is scored from the state just before it.

The events go through the same shard as in production, in steps that end just before the next evaluated post. The
weights stay those of the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphstate.memory.node_tables import CREATED, LQ_SUM, SHARERS
from graphstate.types import Mutation, source_hash
from model.artifact import Artifact
from model.config import OWN
from model.evaluation.calibration import walk_forward
from model.evaluation.live_figures import POST, LivePosts, calibration, model_number, newest
from model.evaluation.metrics import Figure, spearman_figure
from model.explain.numpy_forward import stranger_score
from model.types import Float64s, Int64s
from streams.offline.dataset import closed_contents
from streams.offline.evaluation import EvaluationSet, Progress
from streams.offline.evaluation_replay import ShardReplay, open_replay
from streams.shard.score_publisher import reach_of
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
        posts: The posts as a worker notes them `[p]`, for live figures.
        curves: Predictions over time of the watched users.
    """

    scores: dict[str, Float64s]
    author: Int64s
    day: Int64s
    reach: Float64s
    steps: int
    posts: LivePosts
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

    def calibration_errors(self, horizon: int) -> dict[str, float | int | None]:
        """Return the mean of |log(predicted ÷ observed)| over tenths, over the posts after the first map.

        Args:
            horizon: Length of the horizon (µs).

        Returns:
            `posts`, and the errors of the `score` alone and of reach `calibrated` by the posts closed before each.
        """
        posts = newest([self.posts], len(self.posts))
        people = walk_forward(posts, horizon)
        rows = ~np.isnan(people)
        reach = posts["reach"][rows].astype(np.float64)
        raw, calibrated = (calibration(values[rows], reach)[0] for values in (reach_of(posts["score"]), people))
        return {"posts": int(rows.sum()), "score": raw, "calibrated": calibrated}

    def fresh_minus_frozen(self) -> Figure:
        """Return the gain from fresh features over those at the cut: paired difference of Spearman over posts."""
        fresh, frozen = (spearman_figure(self.scores[name], self.reach) for name in (FRESH, FROZEN))
        return fresh.minus(frozen)


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
    posts = reader.noted(
        artifact, times, reach, closed_contents(events, users.posts.horizon, users.protocol.until)[rows]
    )
    day = (times - cut) // _DAY
    return PrequentialResult(reader.scores, author, day, reach.astype(np.float64), len(ends), posts, curves)


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
        self._counts = np.zeros((len(authors), 3), np.int64)
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
            if row is not None:
                self._counts[post] = users.counts[row, [CREATED, LQ_SUM, SHARERS]]
        self._points.append((time, [score_of(user) for user in self._watched]))

    def noted(self, artifact: Artifact, times: Int64s, reach: Int64s, contents: list[str]) -> LivePosts:
        """Return the posts `[p]` as a worker notes them.

        Args:
            artifact: Artifact that scored.
            times: Times of the posts `[p]` (µs).
            reach: Their reach `[p]`, in persons.
            contents: Their ids `[p]`.
        """
        posts = np.zeros(len(times), POST)
        posts["created_at"], posts["content"] = times, [source_hash(content) for content in contents]
        posts["model"], posts["score"], posts["reach"] = model_number(artifact.version), self.scores[FRESH], reach
        posts["people"] = reach_of(posts["score"])
        posts["posts"], posts["log_reach"], posts["sharers"] = self._counts.T
        return posts

    def curve(self, user: str) -> tuple[list[int], list[float]]:
        """Return times (µs) and predicted reach (distinct sharers) of a watched user, thinned to at most 600 points."""
        column = self._watched.index(user)
        points = self._points[:: max(1, len(self._points) // _CURVE_POINTS)]
        return [time for time, _ in points], [float(np.expm1(max(scores[column], 0.0))) for _, scores in points]
