"""What scores mean in persons, judged on the posts behind the cut: the 80 % interval, and the calibrated mean.

    ───────────── then ─────────────────────── cut ──────────────────────
      the same training │ posts that calibrate,    │ posts that judge, scored by
      on what was known │ scored by that network   │ the network and the graph of
      by then           │ and the graph of then    │ the cut

Then is the time of the newest snapshot. The network that is judged cannot calibrate itself: it has learned from those
posts, and so has the fit that looked for the number of epochs, wherever the windows of snapshots overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphstate.types import Mutation
from model.artifact import Artifact
from model.config import ModelConfig
from model.evaluate import populations
from model.intervals import LEVEL, Persons, whole_range
from model.metrics import Figure, clustered_mean, clustered_ratio, tenths
from model.train import TrainingPlan, train
from model.types import Bools, Float64s, Int64s
from streams.evaluation import Candidates, Exam, Progress, Protocol, data_before
from streams.printing import figure
from streams.training import Dataset, closed_posts, creation_times
from streams.training import plan as times_of

TOLERANCE = 0.05
"""An interval holds if its coverage is no further than this from what it claims: over all, warm and cold alike."""
INTERVAL, RANGE, FRESH = "interval", "all posts alike", "interval, state just before"


@dataclass(frozen=True)
class Learned:
    """What the posts of the time before the cut taught.

    persons: per seed. whole: the interval that knows nothing. posts, authors: how many taught. since: from when (µs).
    """

    persons: list[Persons]
    whole: tuple[float, float]
    posts: int
    authors: int
    since: int


def learn(
    events: Sequence[Mutation],
    config: ModelConfig,
    asked: Protocol,
    *,
    seeds: int = 3,
    snapshots: int = 14,
    plan: TrainingPlan | None = None,
    along_follows: bool = False,
    progress: Progress = lambda _line: None,
) -> Learned:
    """Train as of the newest snapshot's time, and see what the posts between that and the cut got.

    Raises:
        TrainingError: there is too little before the cut.
    """
    known = [m for m in events if m.time <= asked.cut]
    created = creation_times(known)
    then = times_of(created, asked.cut, asked.horizon, snapshots).times[-1]
    posts, authors = closed_posts(known, asked.horizon, asked.cut, along_follows=along_follows)
    rows = slice(int(np.searchsorted(posts.time, max(then, asked.since - 1), side="right")), None)
    author, reach = posts.author[rows], posts.reach[rows].astype(np.float64)
    progress(f"{len(reach):,} posts say what scores mean in persons; the network that scores them knows none of them")
    earlier = replace(asked, cut=then)
    dataset = data_before(known, config, earlier, snapshots=snapshots, along_follows=along_follows, progress=progress)
    at = Candidates.named(dataset, [authors[one] for one in author.tolist()])
    persons = []
    for seed in range(seeds):
        progress(f"the network as of then, seed {seed + 1} of {seeds}")
        persons.append(Persons.fit(at.score(train(dataset.snapshots, config, seed, plan=plan)), reach, author))
    return Learned(persons, whole_range(reach), len(reach), len(np.unique(author)), then)


@dataclass(frozen=True)
class Reached:
    """Coverage and width of one interval. coverage: per population. below, above: posts outside. width: the median."""

    name: str
    coverage: dict[str, Figure]
    below: float
    above: float
    width: float

    @property
    def holds(self) -> bool:
        """Whether it covers what it claims, over all, warm and cold."""
        return all(abs(self.coverage[where].value - LEVEL) <= TOLERANCE for where in ("all", "warm", "cold"))

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        figures = {where: one.row() for where, one in self.coverage.items()}
        sides = {"below": round(self.below, 4), "above": round(self.above, 4), "width": round(self.width, 1)}
        return {"name": self.name, "coverage": figures, **sides}

    def shown(self) -> dict[str, Any]:
        """As a line of a table."""
        sides = {"below": f"{self.below:.3f}", "above": f"{self.above:.3f}", "median width": f"{self.width:.0f}"}
        return {"": self.name, **{where: figure(one.row()) for where, one in self.coverage.items()}, **sides}


@dataclass(frozen=True)
class InPersons:
    """What was found. reached: per interval, the model's first. seeds: coverage of each, all, warm and cold.

    parts: the tenths of the posts by score. ratios: the mean absolute log ratio of predicted to observed mean over
    the tenths, as the score says it and calibrated, and the second less the first.
    """

    learned: Learned
    reached: list[Reached]
    seeds: list[list[float]]
    parts: list[dict[str, Any]]
    ratios: tuple[Figure, Figure, Figure]

    @property
    def verdict(self) -> str:
        """In one line, whether the interval holds here."""
        coverage = self.reached[0].coverage["all"]
        said = "holds" if self.reached[0].holds else "does NOT hold"
        return (
            f"The {100 * LEVEL:.0f} % interval {said} here (all, warm and cold within {LEVEL - TOLERANCE:.2f} to "
            f"{LEVEL + TOLERANCE:.2f}): it covers {coverage.value:.3f} ({coverage.low:.3f} to {coverage.high:.3f})."
        )

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        taught = {"posts": self.learned.posts, "authors": self.learned.authors}
        before, after, less = (one.row() for one in self.ratios)
        return {
            "holds": self.reached[0].holds,
            "verdict": self.verdict,
            "calibrated_on": taught,
            "intervals": [one.row() for one in self.reached],
            "seeds": self.seeds,
            "tenths": self.parts,
            "log_ratio": {"score": before, "calibrated": after, "calibrated_minus_score": less},
            "table": [one.shown() for one in self.reached],
            "parts": [{**part, "coverage": figure(part["coverage"])} for part in self.parts],
            "ratio": (
                f"Mean |log(predicted ÷ observed)| over the tenths: {figure(before)} as the score says it, "
                f"{figure(after)} calibrated."
            ),
        }


def judge(
    learned: Learned, dataset: Dataset, people: Exam, artifacts: Sequence[Artifact], fresh: Float64s | None = None
) -> InPersons:
    """Hold intervals and means against the posts of an exam, strangers' too; one artifact per seed of `learned`.

    fresh: scores of the first artifact by the state just before each post, `[p]`, if there are any.
    """
    posts, asked = people.posts, people.protocol
    rows = slice(*np.searchsorted(posts.time, [asked.cut, asked.until - asked.horizon], side="right"))
    author, reach = posts.author[rows], posts.reach[rows].astype(np.float64)
    places = {user: at for at, user in enumerate(people.ids)}
    person = np.array([places[people.authors[one]] for one in author.tolist()], np.int64)
    at = Candidates.of(dataset, people)
    who = {**populations(people.warm[person]), "strangers": (at.rows == len(dataset.users))[person]}
    scores = np.array([at.score(artifact)[person] for artifact in artifacts])
    means = np.array([one.expected(score) for one, score in zip(learned.persons, scores, strict=True)])
    bounds = np.array([one.interval(score) for one, score in zip(learned.persons, scores, strict=True)])
    alike = np.broadcast_to(np.array(learned.whole)[None, :, None], (1, 2, len(reach)))
    reached = [_reached(INTERVAL, bounds, reach, who, author), _reached(RANGE, alike, reach, who, author)]
    if fresh is not None:
        latest = np.array([learned.persons[0].interval(fresh)])
        reached.insert(1, _reached(FRESH, latest, reach, who, author))
    inside = (reach >= bounds[:, 0]) & (reach <= bounds[:, 1])
    alone = [
        [round(float(one[who[name]].mean()), 4) if who[name].any() else 0.0 for name in ("all", "warm", "cold")]
        for one in inside
    ]
    said = np.expm1(np.maximum(scores, 0.0)).mean(axis=0)
    parts = tenths(scores.mean(axis=0))
    before, after = (clustered_ratio(some, reach, author, parts) for some in (said, means.mean(axis=0)))
    rows_of_parts = _parts(parts, said, means.mean(axis=0), reach, bounds, inside.mean(axis=0), author)
    return InPersons(learned, reached, alone, rows_of_parts, (before, after, after.minus(before)))


def _reached(name: str, bounds: Float64s, reach: Float64s, who: dict[str, Bools], author: Int64s) -> Reached:
    """Of bounds `[seeds, 2, p]`: with several seeds the mean over them."""
    low, high = bounds[:, 0], bounds[:, 1]
    below, above = (reach < low).mean(axis=0), (reach > high).mean(axis=0)
    coverage = {where: clustered_mean((1 - below - above)[rows], author[rows]) for where, rows in who.items()}
    return Reached(name, coverage, float(below.mean()), float(above.mean()), float(np.median(high - low)))


def _parts(
    parts: Sequence[Int64s],
    said: Float64s,
    mean: Float64s,
    reach: Float64s,
    bounds: Float64s,
    inside: Float64s,
    author: Int64s,
) -> list[dict[str, Any]]:
    """The tenths, lowest scores first: persons as the score says them, calibrated and observed, and the interval."""
    found = []
    for rows in parts:
        low, high = np.median(bounds[:, :, rows], axis=(0, 2))
        persons = {"score": said[rows], "calibrated": mean[rows], "observed": reach[rows]}
        found.append(
            {
                "posts": len(rows),
                **{name: round(float(values.mean()), 2) for name, values in persons.items()},
                "from": round(float(low), 1),
                "to": round(float(high), 1),
                "width": round(float(np.median(bounds[:, 1, rows] - bounds[:, 0, rows])), 1),
                "coverage": clustered_mean(inside[rows], author[rows]).row(),
            }
        )
    return found
