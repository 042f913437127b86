"""One cycle of the trainer: judge the artifact in use, train a candidate, judge it, decide. No Kafka, no clock.

events ──────────────────── cut ─────────────────── newest event
the candidate learns from these │ closed posts judge candidate, artifact in use and past mean
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from graphstate.types import Mutation
from model.artifact import Artifact
from model.errors import TrainingError
from model.evaluation.calibration import CalibrationMap, error_out_of_sample, fit
from model.evaluation.gate import GateLimits, Judgement, falls_behind, judge
from streams.offline.dataset import build, closed_posts
from streams.trainer.shadow import ShadowScores, in_order, shadow

if TYPE_CHECKING:
    from model.training.run import Trained

Action = Literal["waiting", "refused", "accepted", "restored", "failed"]
_SECOND = 1_000_000
Progress = Callable[[str], None]


@dataclass(frozen=True)
class CyclePlan:
    """Sizes of a cycle.

    Attributes:
        judging: Number of the newest closed posts that judge; at most a third of all.
        snapshots: Snapshots of a training.
        epochs: Maximum epochs of a training.
        threads: Threads of a training.
        limits: What a candidate must reach.
    """

    judging: int = 500
    snapshots: int = 14
    epochs: int = 14
    threads: int = 1
    limits: GateLimits = field(default_factory=GateLimits)


@dataclass(frozen=True)
class InUse:
    """The artifact in use, and the one before if the trainer replaced it.

    Attributes:
        artifact: The artifact in use.
        before: The artifact that it replaced; None if there is no step back.
        since: Event time of the replacement (µs).
        start: What a training starts from; None: the artifact in use. One that a training made of the same events has
            learned the posts that validate, so neither it nor what is fitted from its weights can be validated by them.
    """

    artifact: Artifact
    before: Artifact | None = None
    since: int = 0
    start: Artifact | None = None


@dataclass(frozen=True)
class Decision:
    """What a cycle decided.

    Attributes:
        action: waiting (too few posts), refused, accepted (put the artifact to use), restored (put the previous one
            back to use), failed (it could not be trained).
        as_of: Time of the newest event (µs).
        artifact: The artifact to use; None for other actions.
        calibration: Its map from scores to persons, by the posts that judged it; None if they are too few.
        candidate: Version of the artifact that was judged; empty if there is none.
        reasons: Why, one sentence each.
        judgement: The figures; None without any.
        trained: What the training compared, the chosen one first; empty without a training.
    """

    action: Action
    as_of: int
    artifact: Artifact | None = None
    calibration: CalibrationMap | None = None
    candidate: str = ""
    reasons: list[str] = field(default_factory=list)
    judgement: Judgement | None = None
    trained: list[dict[str, Any]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Return the figures as a JSON object, empty without any."""
        trained = {"trained": self.trained} if self.trained else {}
        return (self.judgement.row() if self.judgement else {}) | trained

    def row(self) -> dict[str, Any]:
        """Return the decision as a JSON object."""
        return self.figures() | {
            "action": self.action,
            "as_of": self.as_of,
            "candidate": self.candidate,
            "reasons": self.reasons,
        }


def run_cycle(
    events: Sequence[Mutation],
    in_use: InUse,
    plan: CyclePlan | None = None,
    seed: int = 0,
    progress: Progress = lambda _line: None,
) -> Decision:
    """Decide which artifact is used from now on.

    Args:
        events: Events in any order.
        in_use: What is in use.
        plan: Sizes.
        seed: Seed of the training.
        progress: Receives one line per stage.
    """
    plan, ordered = plan or CyclePlan(), in_order(events)
    if not ordered:
        return Decision("waiting", 0, reasons=["the log holds no events"])
    as_of, horizon = ordered[-1].time, in_use.artifact.config.horizon_s * _SECOND
    stepped = _step_back(ordered, in_use, plan, as_of, progress)
    if stepped is not None:
        return stepped
    posts, _ = closed_posts(ordered, horizon, as_of)
    judging = min(plan.judging, len(posts.time) // 3)
    if judging < plan.limits.posts:
        needed = 3 * plan.limits.posts
        return Decision("waiting", as_of, reasons=[f"{len(posts.time)} posts are closed, {needed} are needed"])
    cut = int(posts.time[-judging]) - 1
    try:
        trained = train_candidate(ordered, in_use.start or in_use.artifact, cut, plan, seed, progress)
    except TrainingError as error:
        return Decision("failed", as_of, reasons=[str(error)])
    decision = _judged(ordered, trained, in_use.artifact, cut, plan, progress)
    return replace(decision, trained=trained.rows())


def _judged(
    ordered: Sequence[Mutation], trained: Trained, current: Artifact, cut: int, plan: CyclePlan, progress: Progress
) -> Decision:
    """Decide on what was trained, by the posts after the cut."""
    as_of, candidate = ordered[-1].time, trained.artifact
    if all(np.array_equal(candidate.weights[name], value) for name, value in current.weights.items()):
        return Decision("refused", as_of, reasons=["nothing that was trained is ahead of the artifact in use"])
    progress(f"judging version {candidate.version} ({trained.chosen}) by the closed posts after its cut")
    verdict, scored = compare(ordered, candidate, current, cut, plan.limits)
    if not verdict.accepted:
        return Decision("refused", as_of, candidate=candidate.version, reasons=verdict.reasons, judgement=verdict)
    return Decision("accepted", as_of, candidate, fit(scored.posts), candidate.version, [], verdict)


def _step_back(
    ordered: Sequence[Mutation], in_use: InUse, plan: CyclePlan, as_of: int, progress: Progress
) -> Decision | None:
    """Return the decision to restore the previous artifact; None to keep the one in use."""
    if in_use.before is None:
        return None
    progress(f"comparing version {in_use.artifact.version} with {in_use.before.version}, which it replaced")
    current = shadow(ordered, in_use.artifact, in_use.since)
    if len(current.posts) < plan.limits.posts:
        return None
    previous = shadow(ordered, in_use.before, in_use.since)
    verdict = falls_behind(current.posts, previous.posts, current.authors, plan.limits)
    if not verdict.accepted:
        return None
    reasons = ["the live figure of the artifact in use fell below that of the one before"]
    return Decision("restored", as_of, in_use.before, fit(previous.posts), in_use.before.version, reasons, verdict)


def train_candidate(
    ordered: Sequence[Mutation], start: Artifact, cut: int, plan: CyclePlan, seed: int, progress: Progress
) -> Trained:
    """Train an artifact on the events up to the cut (µs).

    Raises:
        TrainingError: The events are too few.
    """
    from model.training.fitting import TrainingPlan
    from model.training.run import adapt

    before = ordered[: int(np.searchsorted(np.array([event.time for event in ordered]), cut, side="right"))]
    dataset = build(before, start.config, cut, snapshots=plan.snapshots, held_out=0.0, progress=progress)
    training = TrainingPlan(epochs=plan.epochs, threads=plan.threads)
    return adapt(dataset.snapshots, start.config, start, seed, progress, training)


def compare(
    ordered: Sequence[Mutation], candidate: Artifact, current: Artifact, cut: int, limits: GateLimits
) -> tuple[Judgement, ShadowScores]:
    """Score the posts after the cut with both artifacts in shadow, and judge the candidate; also return its scores."""
    new, old = shadow(ordered, candidate, cut), shadow(ordered, current, cut)
    return judge(new.posts, old.posts, new.authors, kept_top(new, old), error_out_of_sample(new.posts), limits), new


def kept_top(new: ShadowScores, old: ShadowScores) -> float:
    """Return the share of the old top users that are among the new ones."""
    return len(set(new.top) & set(old.top)) / max(1, len(old.top))
