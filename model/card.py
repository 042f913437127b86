"""The card of an artifact: what it was trained on, by which command, and how good it is; all of it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from model.choice import Trial, rows
from model.config import ModelConfig
from model.evaluate import Standing

_LIBRARIES = ("torch", "torch_geometric", "lightgbm", "numpy")


@dataclass(frozen=True)
class Facts:
    """What the command knows: its own words, the data, how long it took, and the floors that it tried, if any."""

    command: str
    data: str
    snapshots: int
    held_out: int
    judged_by: str
    seconds: float
    floors: Sequence[Trial] = ()


def card(config: ModelConfig, facts: Facts, ladder: Sequence[Standing]) -> str:
    """Return the card as Markdown.

    Args:
        config: Configuration of the artifact.
        facts: Origin of the artifact.
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
        facts.command,
        "```",
        "",
        (
            f"Data: {facts.data}. {facts.snapshots} snapshots in time; {facts.seconds:.0f} s with "
            f"{', '.join(f'{name} {version(name)}' for name in _LIBRARIES)}."
        ),
        "",
        "## How good",
        "",
        (
            f"Spearman's correlation, over {facts.held_out:,} users whose posts were held out of training, with "
            f"{facts.judged_by}; the interval is a 95 % bootstrap over users."
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
        *_floors(facts.floors),
        "## Limits",
        "",
        (
            "A score ranks expected reach among the users of one stream. It says nothing about why people share, or "
            "about anyone who is not in the stream. Where behaviour differs from the data above, train on your own "
            "events."
        ),
    ]
    return "\n".join(lines) + "\n"


def _floors(trials: Sequence[Trial]) -> list[str]:
    """How the floor was chosen, if it was."""
    if not trials:
        return []
    return [
        "## The floor",
        "",
        (
            "Counters below the floor are all the same to neighbours. Validation is Spearman's correlation over the "
            f"{trials[0].users:,} users of the newest snapshot, without it among the lessons; stale: users, contents "
            "and communities that change what their neighbours read, per 1,000 events, in batches of 100, over the "
            "last half of the events. Of the floors that chance cannot tell from the best the largest is taken."
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
