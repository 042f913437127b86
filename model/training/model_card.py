"""Model card of an artifact: its data, the command, and measured figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from model.config import ModelConfig, duration_text
from model.evaluation.leaderboard import Standing
from model.training.floor_selection import Trial, rows

if TYPE_CHECKING:
    from model.training.many_worlds import WorldFigure

_LIBRARIES = ("torch", "torch_geometric", "lightgbm", "numpy")


@dataclass(frozen=True)
class TrainingRecord:
    """Origin of an artifact.

    Attributes:
        command: Command that repeats the training.
        data: Description of the data.
        snapshots: Number of snapshots.
        held_out: Number of held-out users.
        judged_by: Description of their truth.
        seconds: Duration of the command.
        floors: Floors that were tried.
        candidates: What was compared on the newest windows; the first was chosen.
    """

    command: str
    data: str
    snapshots: int
    held_out: int
    judged_by: str
    seconds: float
    floors: Sequence[Trial] = ()
    candidates: Sequence[dict[str, Any]] = ()


def card(config: ModelConfig, record: TrainingRecord, ladder: Sequence[Standing]) -> str:
    """Return the card as Markdown.

    Args:
        config: Configuration of the artifact.
        record: Origin of the artifact.
        ladder: Figures of the artifact and of the baselines on held-out users.
    """
    lines = [
        *_head(config),
        "## Made by",
        "",
        "```sh",
        record.command,
        "```",
        "",
        (f"Data: {record.data}. {record.snapshots} snapshots in time; {record.seconds:.0f} s with {_versions()}."),
        "",
        "## How good",
        "",
        (
            f"Spearman's correlation, over {record.held_out:,} users whose posts were held out of training, with "
            f"{record.judged_by}; the interval is a 95 % bootstrap over users."
        ),
        "",
        "| scorer | all | interval | warm | cold |",
        "|---|---|---|---|---|",
        *(
            "| {name} | {all:.3f} | {low:.3f} to {high:.3f} | {warm:.3f} | {cold:.3f} |".format(**line)
            for line in (standing.summary(digits=None) for standing in ladder)
        ),
        "",
        "Warm users have an earlier post, cold ones have none.",
        "",
        *_candidates(record.candidates),
        *_floors(record.floors),
        *_limits(),
    ]
    return "\n".join(lines) + "\n"


def worlds_card(config: ModelConfig, command: str, data: str, held_out: int, figures: Sequence[WorldFigure]) -> str:
    """Return the card of an artifact that was trained on many worlds as Markdown.

    Args:
        config: Configuration of the artifact.
        command: Command that repeats the training.
        data: Description of the worlds, with the duration.
        held_out: Number of worlds that were held out.
        figures: Figures on these.
    """
    lines = [
        *_head(config), "## Made by", "", "```sh", command, "```", "",
        f"Data: {data}, with {_versions()}. No real data.", "", "## How good", "",
        f"Mean of Spearman's correlation with the log reach of later posts, over {held_out} worlds that were held out.",
        "", "| scorer | all | warm |", "|---|---|---|",
        *(f"| {figure.name} | {figure.every:.3f} | {figure.warm:.3f} |" for figure in figures), "",
        "Warm users have an earlier post. On real data see `docs/model.md`.", "", *_limits(),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)


def _head(config: ModelConfig) -> list[str]:
    return [
        "# Model card",
        "",
        (
            "Predicts the reach of a user's next post: the number of distinct people who will share it within "
            f"{duration_text(config.horizon_s)}. Two heterogeneous GATv2 layers (hidden {config.hidden}, "
            f"{config.heads} heads) over windows of {config.window}, and a head that also reads own features, relative "
            f"to the population. Neighbours read counters in octaves from {config.floor} on."
        ),
        "",
    ]


def _limits() -> list[str]:
    return [
        "## Limits",
        "",
        (
            "A score ranks expected reach among the users of one stream. It does not explain why people share, and "
            "does not cover users outside the stream. Where behaviour differs from the data above, train on your own "
            "events."
        ),
    ]


def _candidates(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the section on what was kept; empty if nothing was compared."""
    if not rows:
        return []
    return [
        "## What was kept",
        "",
        f"{rows[0]['candidate']}: Spearman's correlation over the newest windows of posts, which no fit learned from.",
        "",
        "| candidate | validation |",
        "|---|---|",
        *(f"| {row['candidate']} | {row['validation']} |" for row in rows),
        "",
    ]


def _floors(trials: Sequence[Trial]) -> list[str]:
    """Return the section on the selection of the floor; empty if none was made."""
    if not trials:
        return []
    return [
        "## The floor",
        "",
        (
            "Counters below the floor are equal to neighbours. Validation is Spearman's correlation over the "
            f"{trials[0].users:,} users of the newest snapshot, which is not learned from; stale: users, contents "
            "and communities that change what their neighbours read, per 1,000 events, in batches of 100, over the "
            "last half of the events. Selected: the largest floor that is not worse than the best by more than chance."
        ),
        "",
        "| floor | validation | stale | chosen |",
        "|---|---|---|---|",
        *(
            f"| {row['floor']} | {row['validation']} | {row['stale_per_1000_events']} | {'yes' * row['chosen']} |"
            for row in rows(trials)
        ),
        "",
    ]
