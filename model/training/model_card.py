"""Model card of an artifact: its data, the command, and measured figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from model.config import ModelConfig
from model.evaluation.leaderboard import Standing
from model.training.floor_selection import Trial, rows

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
    """

    command: str
    data: str
    snapshots: int
    held_out: int
    judged_by: str
    seconds: float
    floors: Sequence[Trial] = ()


def card(config: ModelConfig, record: TrainingRecord, ladder: Sequence[Standing]) -> str:
    """Return the card as Markdown.

    Args:
        config: Configuration of the artifact.
        record: Origin of the artifact.
        ladder: Figures of the artifact and of the baselines on held-out users.
    """
    lines = [
        "# Model card",
        "",
        (
            "Predicts the reach of a user's next post: the number of distinct people who will share it within "
            f"{config.horizon_s / 86_400:g} days. Two heterogeneous GATv2 layers (hidden {config.hidden}, "
            f"{config.heads} heads) over windows of {config.window}, and a head that also reads own features. "
            f"Neighbours read counters in octaves from {config.floor} on."
        ),
        "",
        "## Made by",
        "",
        "```sh",
        record.command,
        "```",
        "",
        (
            f"Data: {record.data}. {record.snapshots} snapshots in time; {record.seconds:.0f} s with "
            f"{', '.join(f'{name} {version(name)}' for name in _LIBRARIES)}."
        ),
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
        *_floors(record.floors),
        "## Limits",
        "",
        (
            "A score ranks expected reach among the users of one stream. It does not explain why people share, and "
            "does not cover users outside the stream. Where behaviour differs from the data above, train on your own "
            "events."
        ),
    ]
    return "\n".join(lines) + "\n"


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
