"""The gate: whether a candidate may replace the artifact in use, by closed posts that neither was trained on.

All scorers are compared on the same posts, and resampled over the same authors, as the posts of one author are alike.
Few authors cannot decide: of each only the newest posts count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.evaluation.live_figures import POSTS_MIN, LivePosts, past_mean
from model.evaluation.metrics import DRAWS, Figure, spearman
from model.types import Float64s, Int64s

CANDIDATE, CURRENT, PAST = "candidate", "current", "past mean"
PER_AUTHOR = 5
"""Maximum number of an author's posts that count."""


@dataclass(frozen=True)
class GateLimits:
    """What a candidate must reach.

    Attributes:
        posts: Minimum number of posts.
        better: Minimum share of the draws in which the candidate ranks better than the artifact in use.
        half_loss: Maximum loss of Spearman against the artifact in use in either half of the time, in standard
            deviations of the Spearman of as many unrelated posts, 1 / √posts.
        calibration: Maximum of `model.evaluation.calibration.error_out_of_sample`: log 2, so a factor of 2.
        kept_top: Minimum share of the 100 users with the largest reach that stay among them.
    """

    posts: int = 200
    better: float = 0.8
    half_loss: float = 1.0
    calibration: float = math.log(2)
    kept_top: float = 0.1


@dataclass(frozen=True)
class Judgement:
    """Figures of a comparison, and what they decide.

    Attributes:
        accepted: Whether the candidate may be put to use.
        reasons: What it failed, one sentence each; empty if it was accepted.
        posts: Number of posts that counted.
        authors: Number of their authors.
        spearman: Spearman's correlation with its interval, by scorer.
        minus_current: Paired difference of the candidate to the artifact in use.
        minus_past: Paired difference of the candidate to the past mean.
        better: Share of the draws in which the candidate ranks better than the artifact in use.
        calibration: As in `GateLimits`; None if it was not computed.
        kept_top: As in `GateLimits`; None if it was not computed.
    """

    accepted: bool
    reasons: list[str]
    posts: int
    authors: int
    spearman: dict[str, Figure] = field(default_factory=dict)
    minus_current: Figure | None = None
    minus_past: Figure | None = None
    better: float = 0.0
    calibration: float | None = None
    kept_top: float | None = None

    def row(self) -> dict[str, Any]:
        """Return the judgement as a JSON object."""
        return {
            "accepted": self.accepted,
            "reasons": self.reasons,
            "posts": self.posts,
            "authors": self.authors,
            "spearman": {name: figure.row() for name, figure in self.spearman.items()},
            "minus_current": self.minus_current.row() if self.minus_current else None,
            "minus_past": self.minus_past.row() if self.minus_past else None,
            "better": round(self.better, 3),
            "calibration": None if self.calibration is None else round(self.calibration, 3),
            "kept_top": self.kept_top,
        }


def capped(authors: Int64s, per_author: int = PER_AUTHOR) -> Int64s:
    """Return the rows of each author's newest posts, in order of time.

    Args:
        authors: Author `[p]` of each post, in order of time.
        per_author: Maximum number of posts of an author.
    """
    seen: dict[int, int] = {}
    rows = []
    for row in range(len(authors) - 1, -1, -1):
        author = int(authors[row])
        seen[author] = seen.get(author, 0) + 1
        if seen[author] <= per_author:
            rows.append(row)
    return np.array(rows[::-1], np.int64)


def author_draws(authors: Int64s, draws: int = DRAWS, seed: int = 0) -> list[Int64s]:
    """Draw authors with replacement; return the rows of their posts, per draw."""
    order = np.argsort(authors, kind="stable")
    starts = np.flatnonzero(np.diff(authors[order], prepend=-1))
    rows_of = np.split(order, starts[1:])
    random = np.random.default_rng(seed)
    return [
        np.concatenate([rows_of[one] for one in random.integers(0, len(rows_of), len(rows_of))]) for _ in range(draws)
    ]


def compare(scores: dict[str, Float64s], reach: Float64s, authors: Int64s) -> dict[str, Figure]:
    """Return Spearman's correlation of each scorer with its interval; all are drawn on the same authors.

    Args:
        scores: Scores `[p]` by scorer.
        reach: Reach `[p]` of the posts.
        authors: Their authors `[p]`.
    """
    draws = author_draws(authors)
    return {
        name: Figure.of(
            spearman(score, reach), np.array([spearman(score[rows], reach[rows]) for rows in draws], np.float64)
        )
        for name, score in scores.items()
    }


def judge(
    candidate: LivePosts,
    current: LivePosts,
    authors: Int64s,
    kept_top: float,
    calibration: float | None,
    limits: GateLimits | None = None,
) -> Judgement:
    """Compare a candidate with the artifact in use and with the past mean on the same closed posts.

    Args:
        candidate: The posts `[p]` with the candidate's predictions, in order of time.
        current: The same posts with those of the artifact in use.
        authors: Authors `[p]`, as numbers.
        kept_top: Share of the top 100 of the artifact in use that are in the candidate's.
        calibration: Error of the candidate's calibrated reach on posts that its map was not made from; None: unknown.
        limits: What the candidate must reach.
    """
    limits, rows = limits or GateLimits(), capped(authors)
    candidate, current, authors = candidate[rows], current[rows], authors[rows]
    number, people = len(rows), len(np.unique(authors))
    if number < max(limits.posts, POSTS_MIN // 2):
        return Judgement(False, [f"{number} closed posts count, {limits.posts} are needed"], number, people)
    reach = candidate["reach"].astype(np.float64)
    scores = {
        CANDIDATE: candidate["score"].astype(np.float64),
        CURRENT: current["score"].astype(np.float64),
        PAST: past_mean(current),
    }
    figures = compare(scores, reach, authors)
    minus_current, minus_past = (figures[CANDIDATE].minus(figures[name]) for name in (CURRENT, PAST))
    better = float((minus_current.draws > 0).mean())
    reasons = []
    if better < limits.better:
        reasons.append(
            f"it ranks better than the artifact in use in {better:.0%} of the draws, {limits.better:.0%} are needed"
        )
    if minus_past.high < 0:
        reasons.append(f"it ranks surely worse than the past mean: {minus_past.text('+')}")
    if figures[CANDIDATE].low <= 0:
        reasons.append(f"its correlation is not surely above 0: {figures[CANDIDATE].text()}")
    for half in np.array_split(np.arange(number), 2):
        loss = spearman(scores[CURRENT][half], reach[half]) - spearman(scores[CANDIDATE][half], reach[half])
        allowed = limits.half_loss / math.sqrt(len(half))
        if loss > allowed:
            reasons.append(f"it ranks worse by {loss:.3f} in one half of the time, {allowed:.3f} is allowed")
    if calibration is not None and calibration > limits.calibration:
        reasons.append(f"its reach is off by {calibration:.2f} in log by fifths, {limits.calibration:.2f} is allowed")
    if kept_top < limits.kept_top:
        reasons.append(f"it keeps {kept_top:.0%} of the top 100, {limits.kept_top:.0%} are needed")
    return Judgement(
        accepted=not reasons,
        reasons=reasons,
        posts=number,
        authors=people,
        spearman=figures,
        minus_current=minus_current,
        minus_past=minus_past,
        better=better,
        calibration=calibration,
        kept_top=round(kept_top, 3),
    )


def falls_behind(
    current: LivePosts, previous: LivePosts, authors: Int64s, limits: GateLimits | None = None
) -> Judgement:
    """Judge the step back: whether the previous artifact is surely better than the one in use, or the past mean is.

    Args:
        current: Posts `[p]` since the artifact in use was put to use, with its predictions.
        previous: The same posts with those of the previous artifact.
        authors: Authors `[p]`, as numbers.
        limits: The minimum number of posts.

    Returns:
        A judgement of the previous artifact; accepted: take it back to use.
    """
    limits, rows = limits or GateLimits(), capped(authors)
    current, previous, authors = current[rows], previous[rows], authors[rows]
    number, people = len(rows), len(np.unique(authors))
    if number < limits.posts:
        return Judgement(False, [f"{number} closed posts count, {limits.posts} are needed"], number, people)
    reach = current["reach"].astype(np.float64)
    scores = {
        CANDIDATE: previous["score"].astype(np.float64),
        CURRENT: current["score"].astype(np.float64),
        PAST: past_mean(current),
    }
    figures = compare(scores, reach, authors)
    ahead, past_ahead = figures[CANDIDATE].minus(figures[CURRENT]), figures[PAST].minus(figures[CURRENT])
    worse_than_past = past_ahead.low > 0 and ahead.value > 0
    reasons = [] if ahead.low > 0 or worse_than_past else [f"the artifact in use has not fallen: {ahead.text('+')}"]
    minus_past, better = figures[CANDIDATE].minus(figures[PAST]), float((ahead.draws > 0).mean())
    return Judgement(not reasons, reasons, number, people, figures, ahead, minus_past, better)
