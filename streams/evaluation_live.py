"""Prequential figures: every post behind the cut is scored by the state just before it, as a worker would have.

The events go through the same shard as in production, in steps that end just before the next post that judges; the
weights stay what they were at the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from graphstate.types import Mutation
from model.artifact import Artifact
from model.baselines import past_mean
from model.config import OWN_SCALE
from model.metrics import Figure, spearman_figure
from model.types import Float64s, GraphInput, Int64s
from streams.cluster import Cluster
from streams.evaluation import Exam, Progress
from streams.graphview import graph_spec
from streams.replay import BATCH, cluster

STEPS = 4_000
"""At most so many steps: of more posts, those of a step are scored by the state before the first of them."""
_DAY = 86_400_000_000
_CURVES = 4
_POINTS = 300

FRESH, FROZEN, PAST = "state just before", "state at the cut", "past mean just before"


@dataclass(frozen=True)
class Curve:
    """A breakout: what the model expected of a user, in persons, and what their posts got; times in µs."""

    user: str
    times: list[int]
    reach: list[float]
    posts: list[tuple[int, int]]


@dataclass
class Live:
    """What came out. scores: per scorer, `[p]`; author, day, reach `[p]`."""

    scores: dict[str, Float64s]
    author: Int64s
    day: Int64s
    reach: Float64s
    steps: int
    curves: list[Curve] = field(default_factory=list)

    def figures(self) -> list[dict[str, Any]]:
        """Per scorer Spearman over posts, and over users and days (means of a user's posts of a day)."""
        _, place = np.unique(self.author * (int(self.day.max()) + 1) + self.day, return_inverse=True)
        number = np.bincount(place)

        def mean(values: Float64s) -> Float64s:
            return np.bincount(place, values) / number

        rows = []
        for name, score in self.scores.items():
            per_post, per_step = spearman_figure(score, self.reach), spearman_figure(mean(score), mean(self.reach))
            rows.append({"scorer": name, "per_post": per_post.row(), "per_user_day": per_step.row()})
        return rows

    def fresher(self) -> Figure:
        """What fresh features add over those at the cut: Spearman over posts, paired."""
        one, two = (spearman_figure(self.scores[name], self.reach) for name in (FRESH, FROZEN))
        return one.minus(two)


def stranger_score(artifact: Artifact) -> float:
    """The mean log reach that an artifact expects of somebody of whom nothing is known."""
    from model.reference import reference

    config = artifact.config
    nobody = GraphInput.scaled(
        config,
        {name: np.zeros((0, len(names)), np.int32) for name, names in config.propagated.items()},
        {name: np.zeros((2, 0), np.int64) for name, _, _ in config.relations},
        np.zeros((0, len(config.own)), np.int32),
    )
    return float(reference(artifact.weights, config, nobody.with_strangers())[2][0])


def breakouts(people: Exam, sharers: Float64s) -> list[str]:
    """Users outside the top tenth by past sharers `[n]` with the most shared posts behind the cut."""
    outside = sharers <= np.quantile(sharers, 0.9)
    most = np.where(outside, people.reach * people.number, -1)
    return [people.ids[row] for row in np.argsort(-most, kind="stable")[:_CURVES].tolist() if most[row] > 0]


def prequential(
    events: Sequence[Mutation],
    people: Exam,
    artifact: Artifact,
    watched: Sequence[str] = (),
    steps: int = STEPS,
    progress: Progress = lambda _line: None,
) -> Live:
    """Replay the events (in order of time) up to the last post that judges, and score each post before it happens."""
    asked, posts = people.protocol, people.posts
    low, high = np.searchsorted(posts.time, [asked.cut, asked.until - asked.horizon], side="right")
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=0)
    reader = _Reader(artifact, [people.authors[row] for row in posts.author[low:high].tolist()], list(watched))
    ends = np.unique(posts.time[low:high])
    ends = ends[:: -(-len(ends) // steps)]
    with TemporaryDirectory(prefix="groundswell-evaluate-") as folder, cluster(artifact, spec, Path(folder), 1) as one:
        fed = _feed(one, events, 0, asked.cut + 1, progress)
        reader.freeze(one)
        at = 0
        for number, end in enumerate(ends.tolist(), 1):
            fed = _feed(one, events, fed, end, None)
            until = int(np.searchsorted(posts.time[low:high], ends[number])) if number < len(ends) else high - low
            reader.read(one, range(at, until), end)
            at = until
            if number % 200 == 0 or number == len(ends):
                progress(f"step {number:,} of {len(ends):,}: {at:,} posts scored just before they came")
    curves = [
        Curve(
            user,
            *reader.curve(user),
            [
                (int(posts.time[row]), int(posts.reach[row]))
                for row in range(low, high)
                if people.authors[posts.author[row]] == user
            ],
        )
        for user in watched
    ]
    day = (posts.time[low:high] - asked.cut) // _DAY
    reach = posts.reach[low:high].astype(np.float64)
    return Live(reader.scores, posts.author[low:high], day, reach, len(ends), curves)


def _feed(one: Cluster, events: Sequence[Mutation], fed: int, end: int, progress: Progress | None) -> int:
    """Feed the events before a time (µs); how many have been fed in all."""
    until = fed
    while until < len(events) and events[until].time < end:
        until += 1
    for at in range(fed, until, BATCH):
        one.feed(events[at : min(at + BATCH, until)])
        one.drain()
        if progress is not None:
            progress(f"replayed {min(at + BATCH, until):,} events up to the cut")
    return until


class _Reader:
    """What a shard says of the author of each post, and of those who are watched."""

    def __init__(self, artifact: Artifact, authors: list[str], watched: list[str]) -> None:
        self._authors = authors
        self._watched = watched
        self._stranger = stranger_score(artifact)
        self._mean = artifact.config.target_mean
        self._points: list[tuple[int, list[float]]] = []
        self.scores = {name: np.zeros(len(authors)) for name in (FRESH, FROZEN, PAST)}

    def _score(self, one: Cluster) -> Callable[[str], float]:
        shard = one.shards[0]
        users, score = shard.graph.ledger.users, shard.engine.score

        def of(user: str) -> float:
            row = users.index.get(user)
            return self._stranger if row is None or not users.live(row) else float(score[row])

        return of

    def freeze(self, one: Cluster) -> None:
        """Score everyone once, with the state at the cut."""
        score = self._score(one)
        self.scores[FROZEN][:] = [score(user) for user in self._authors]

    def read(self, one: Cluster, posts: range, time: int) -> None:
        """Score the authors of some posts with the state as it is, just before `time` (µs)."""
        score, users = self._score(one), one.shards[0].graph.ledger.users
        for post in posts:
            self.scores[FRESH][post] = score(self._authors[post])
            row = users.index.get(self._authors[post])
            own = np.zeros((1, len(OWN_SCALE)), np.float32) if row is None else users.own[row : row + 1] * OWN_SCALE
            self.scores[PAST][post] = past_mean(own, self._mean)[0]
        self._points.append((time, [score(user) for user in self._watched]))

    def curve(self, user: str) -> tuple[list[int], list[float]]:
        """Times (µs) and expected persons of one who is watched, thinned to what a plot can show."""
        at = self._watched.index(user)
        some = self._points[:: max(1, len(self._points) // _POINTS)]
        return [time for time, _ in some], [float(np.expm1(max(scores[at], 0.0))) for _, scores in some]
