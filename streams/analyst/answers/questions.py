"""Questions to the analyst that are answered at once: lists of seeds, and how far a message would spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from graphstate.types import Int32s, Int64s
from model.analysis import cascade_seeds, coverage, diffusion
from model.analysis.adjacency import reverse
from model.analysis.edge_model import LEAST_SHARES
from model.analysis.follower_quality import THRESHOLD
from streams.analyst.background import Analysis
from streams.analyst.measures import Measures
from streams.errors import AnalystError
from streams.messages.headers import rfc3339

USERS = 100_000
"""Most users that a question may name."""
SharesOn = Callable[[str, int], tuple[tuple[Int32s, Int32s, Int64s], Int64s]]
Probability = Annotated[float, Meta(ge=0, le=1)] | Literal["weighted", "learned"]


class SeedQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/seeds`.

    Attributes:
        k: the most seeds.
        budget: the most that they may cost; None: no limit.
        costs: cost of users, 1 for those not named.
        given: users that are chosen already.
        users: the candidates; None: all live users.
        community: only candidates of this community; empty: all.
        topic: only posts on this topic count, and only users who have some are candidates; empty: all posts.
        followers: only candidates with at least this number of followers.
        most_followers: only candidates with at most this number; None: no limit.
        model: `reach`: expected sharers of the next posts, with overlap; `ic`: the independent cascade along follows.
        probability: of each follow that a message passes it, for `ic`; as in `DiffusionQuestion`.
        guarantee: for `ic`: samples are added until the list is known to have this part of the best possible reach,
            or there are as many as are allowed.
    """

    k: Annotated[int, Meta(ge=1, le=1_000)] = 20
    budget: Annotated[float, Meta(gt=0)] | None = None
    costs: dict[str, Annotated[float, Meta(gt=0)]] = {}
    given: list[str] = []
    users: list[str] | None = None
    community: str = ""
    topic: str = ""
    followers: Annotated[int, Meta(ge=0)] = 0
    most_followers: Annotated[int, Meta(ge=0)] | None = None
    model: Literal["reach", "ic"] = "reach"
    probability: Probability = "weighted"
    guarantee: Annotated[float, Meta(ge=0, lt=1)] = cascade_seeds.GUARANTEE


class DiffusionQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/diffuse`.

    Attributes:
        users: the users who begin.
        model: `ic` (independent cascade) or `lt` (linear threshold).
        probability: of each follow that a message passes it: a number; `weighted`: 1 / number of users followed; or
            `learned`: from who shared what recently. For `lt` they are made to add up to at most 1 for each user.
        samples: the number of simulations.
        seed: of the random numbers.
    """

    users: Annotated[list[str], Meta(min_length=1, max_length=USERS)]
    model: Literal["ic", "lt"] = "ic"
    probability: Probability = "weighted"
    samples: Annotated[int, Meta(ge=10, le=100_000)] = 1_000
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0


def seeds(question: SeedQuestion, measures: Measures, analysis: Analysis, shares_on: SharesOn) -> dict[str, Any]:
    """Return the users that reach most distinct people together, of those that the question allows.

    Args:
        question: the question.
        measures: the measures of the last pass.
        analysis: the results of the last round.
        shares_on: returns who shared how many of whose posts on a topic, and the posts of each of the first rows.

    Raises:
        AnalystError: a named user does not exist, or the model has no such question.
    """
    rows = len(analysis.labels)
    allowed = _allowed(question, measures, analysis)
    rates = analysis.rates
    if question.topic:
        rates, posting = _on_topic(question.topic, rows, shares_on)
        allowed &= posting
    if question.model == "ic":
        return _cascade(question, measures, analysis, allowed)
    given = _rows(question.given, measures, rows)
    allowed[given] = False
    cost: NDArray[np.float64] | None = None
    if question.costs or question.budget is not None:
        cost = np.ones(rows)
        for user, price in question.costs.items():
            row = measures.row(user)
            if row is not None and row < rows:
                cost[row] = price
    choice = coverage.choose(
        rates,
        np.flatnonzero(allowed),
        question.k,
        budget=float("inf") if question.budget is None else question.budget,
        cost=cost,
        given=given,
    )
    chosen = zip(choice.rows.tolist(), choice.added.tolist(), strict=True)
    return {
        "list": "reach",
        "seeds": [{"user": measures.ids[row], "adds": added} for row, added in chosen],
        "expected_reach": float(choice.added.sum()),
        "cost": choice.cost,
        "as_of": rfc3339(max(analysis.measures.as_of, 0)),
    }


def _on_topic(topic: str, rows: int, shares_on: SharesOn) -> tuple[coverage.Rates, NDArray[np.bool_]]:
    """Return whom the next post on a topic of each row reaches, and which rows have posts on it."""
    (sharer, creator, shared), posts = shares_on(topic, rows)
    # Users who came since the round have no row in it.
    known = (sharer < rows) & (creator < rows)
    rates = coverage.rates(rows, sharer[known], creator[known], shared[known], posts[:rows])
    return rates, posts[:rows] > 0


def _allowed(question: SeedQuestion, measures: Measures, analysis: Analysis) -> NDArray[np.bool_]:
    """Return whether each row may be a seed."""
    rows = len(analysis.labels)
    allowed = measures.live[:rows].copy()
    if question.users is not None:
        named = np.zeros(rows, np.bool_)
        named[[row for row in map(measures.row, question.users) if row is not None and row < rows]] = True
        allowed &= named
    if question.community:
        used = np.unique(analysis.labels[analysis.labels >= 0]).tolist()
        wanted = [label for label in used if analysis.community_id(label) == question.community]
        allowed &= np.isin(analysis.labels, np.array(wanted, np.int64))
    allowed &= measures.followers[:rows] >= question.followers
    if question.most_followers is not None:
        allowed &= measures.followers[:rows] <= question.most_followers
    return allowed


def _cascade(
    question: SeedQuestion, measures: Measures, analysis: Analysis, allowed: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the seeds of the independent cascade, with their guarantee."""
    if question.given or question.costs or question.budget is not None:
        raise AnalystError("model ic accepts neither costs nor given users; leave them out, or ask for model reach")
    offsets, targets = measures.follows.offsets, measures.follows.targets
    # A message reaches a user from those whom the user follows.
    receiver = np.repeat(np.arange(len(measures.live), dtype=np.int32), np.diff(offsets))
    candidates = np.zeros(len(measures.live), np.bool_)
    candidates[: len(allowed)] = allowed
    if measures.sets is not None and question.probability == "weighted":
        chosen = cascade_seeds.choose_from(*measures.sets, measures.live & candidates, question.k)
    else:
        chosen = cascade_seeds.choose(
            offsets, targets, chances(question.probability, receiver, targets, measures, analysis), measures.live,
            question.k, candidates=candidates, guarantee=question.guarantee,
        )  # fmt: skip
    return {
        "list": "ic",
        "seeds": [{"user": measures.ids[row]} for row in chosen.rows.tolist()],
        "expected_reach": chosen.reach,
        "guarantee": chosen.guarantee,
        "theta": chosen.theta,
        "as_of": rfc3339(max(measures.as_of, 0)),
    }


def diffuse(question: DiffusionQuestion, measures: Measures, analysis: Analysis | None) -> dict[str, Any]:
    """Return the expected number of users that a message from some users reaches along follows, with its interval.

    Raises:
        AnalystError: a named user does not exist.
    """
    start = _rows(question.users, measures, len(measures.live))
    # A message travels from a user to the followers, against the direction of a follow.
    offsets, targets = reverse(measures.follows.offsets, measures.follows.targets)
    sender = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    probability = chances(question.probability, targets, sender, measures, analysis)
    if question.model == "lt":
        probability = diffusion.threshold_weights(targets, probability, len(measures.live))
    spread = diffusion.reach(
        offsets, targets, probability, start, model=question.model, samples=question.samples, seed=question.seed
    )
    return {
        "model": question.model,
        "probability": question.probability,
        "samples": question.samples,
        "expected_reach": spread.mean,
        "standard_error": spread.standard_error,
        "interval": [spread.low, spread.high],
        "as_of": rfc3339(max(measures.as_of, 0)),
    }


def bots(analysis: Analysis, limit: int) -> dict[str, Any]:
    """Return the suspected bots of the lowest quality, and the users with most followers that do not count.

    Args:
        analysis: of a round.
        limit: the most users of each list.
    """
    measures, quality = analysis.measures, analysis.quality
    live, suspected = measures.live, analysis.suspected
    missing = np.where(live, measures.followers - quality.followers, 0.0)
    follows = int(measures.followers[live].sum())
    number = min(limit, int(suspected.sum()))
    lowest = np.argsort(np.where(suspected, quality.user, np.inf), kind="stable")[:number]
    most = np.argsort(-missing, kind="stable")[:limit]
    return {
        "threshold": THRESHOLD,
        "users": int(live.sum()),
        "suspected": int(suspected.sum()),
        "counting_share": float(quality.followers[live].sum()) / follows if follows else None,
        "bots": _entries(analysis, lowest),
        "audiences": _entries(analysis, most[missing[most] > 0]),
    }


def audiences(analysis: Analysis, limit: int) -> dict[str, Any]:
    """Return the users with most followers by quality, in descending order."""
    values = np.where(analysis.measures.live, analysis.quality.followers, -1.0)
    number = min(limit, int(analysis.measures.live.sum()))
    return {"top": _entries(analysis, np.argsort(-values, kind="stable")[:number])}


def quality_of(analysis: Analysis, row: int) -> dict[str, Any]:
    """Return the quality of a row as a follower, and its followers by their quality."""
    return {
        "quality": float(analysis.quality.user[row]),
        "quality_followers": float(analysis.quality.followers[row]),
        "suspected_bot": bool(analysis.suspected[row]),
    }


def _entries(analysis: Analysis, rows: Int64s) -> list[dict[str, Any]]:
    measures = analysis.measures
    return [{"user": measures.ids[row], **measures.of_user(row), **quality_of(analysis, row)} for row in rows.tolist()]


def chances(
    given: float | str, receiver: Int32s, sender: Int32s, measures: Measures, analysis: Analysis | None
) -> NDArray[np.float64]:
    """Return the probability that a message passes from each sender to each receiver, who follows it, `[m]`.

    Raises:
        AnalystError: they should be learned, and there is too little to learn from.
    """
    if given == "weighted":
        return 1.0 / np.maximum(measures.following[receiver], 1)
    if given != "learned":
        return np.full(len(receiver), float(given))
    if analysis is None or analysis.learned is None:
        raise AnalystError(
            f"no probabilities are learned: that takes {LEAST_SHARES} shares by followers within three days of a post "
            "that they saw; ask for weighted ones, or give a number"
        )
    return analysis.learned.of(receiver, sender)


def _rows(users: list[str], measures: Measures, rows: int) -> Int64s:
    found = [measures.row(user) for user in users]
    unknown = [user for user, row in zip(users, found, strict=True) if row is None or row >= rows]
    if unknown:
        raise AnalystError(f"no such user, or a forgotten one: {unknown[0]}; leave it out")
    return np.array(found, np.int64)
